# What each target does is in the program it runs; `go doc ./hack/NAME` tells.
# Only build, check and test matter daily.

.PHONY: build check test e2e bench chaos lint generate demo clean setup

build: setup ## bin/hansa, with the programs it carries
	go run ./hack/build

check: ## the inner loop: vet and unit tests
	go vet ./...
	go run ./hack/test unit carried

test: setup ## everything, with the time of each stage
	go run ./hack/test

e2e: setup ## real kernel, real containers
	go run ./hack/test build clients e2e

bench: build ## every figure, one a line: NAME VALUE UNIT; Docker Swarm's beside them where dockerd is
	@for b in $(sort $(dir $(wildcard bench/*/main.go))); do \
		set --; [ $$b != bench/node/ ] || ! command -v dockerd >/dev/null || set -- -swarm; \
		go run ./$$b "$$@" || exit 1; \
	done

chaos: build ## kill -9, for longer than CI does: make chaos FOR=30m
	HANSA_CHAOS=$(or $(FOR),10m) go test -count=1 -timeout=0 -run 'Chaos|Kill' -v ./e2e

lint:
	go run ./hack/lint
	go vet ./...
	go -C carried vet ./containerd/ends ./hansa-cni ./pause
	go -C examples/operator vet ./...

generate: ## what is generated from sources, committed and checked by CI
	go generate ./...

demo: build ## a cluster, nginx in front of Go, scaled and rolled under load; KEEP=1 leaves it up
	go run ./hack/demo $(if $(KEEP),-keep)

setup:
	@hack/setup

clean: ## everything that building left; a running cluster is stopped by `hansa down`
	rm -rf bin .cache
