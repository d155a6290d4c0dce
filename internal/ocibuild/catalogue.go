package ocibuild

import (
	"fmt"
	"io/fs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Names of the images that the demo, the tests and the benchmarks share.
const (
	Web     = "hansa.local/web:1"
	Busybox = "hansa.local/busybox:1"
	// Operator is examples/operator, which also is what it deploys.
	Operator = "hansa.local/operator:1"
)

// Backend names the backend of examples/web in a version, 1 to Backends.
func Backend(version int) string { return fmt.Sprintf("hansa.local/backend:%d", version) }

// Backends is how many versions of the backend there are: one to begin with,
// and one for each rolling update of the demo.
const Backends = 4

// Catalogue returns the spec of each image by its name.
func Catalogue() map[string]Spec {
	c := map[string]Spec{Web: web(), Busybox: busybox(), Operator: operator()}
	for v := 1; v <= Backends; v++ {
		c[Backend(v)] = backend(v)
	}
	return c
}

// accounts are the users that Debian's packages expect to find.
const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
	group  = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"
	// nsswitch makes names of /etc/hosts win over DNS, as everywhere.
	nsswitch = "passwd: files\ngroup: files\nhosts: files dns\n"
)

// nginxConf does what the image of nginx that people know does: servers come
// from conf.d, logs go where a container's logs go.
const nginxConf = `user www-data;
worker_processes auto;
pid /run/nginx.pid;
error_log /dev/stderr notice;

events {
	worker_connections 1024;
}

http {
	include /etc/nginx/mime.types;
	default_type application/octet-stream;
	access_log /dev/stdout;
	keepalive_requests 10000;
	include /etc/nginx/conf.d/*.conf;
}
`

// web is nginx from Debian.
func web() Spec {
	return Spec{
		Packages: []string{"nginx"},
		Files: map[string]File{
			"/etc/passwd":           {Content: passwd},
			"/etc/group":            {Content: group},
			"/etc/nsswitch.conf":    {Content: nsswitch},
			"/etc/nginx/nginx.conf": {Content: nginxConf},
		},
		Dirs: map[string]fs.FileMode{"/run": 0o755, "/tmp": fs.ModeSticky | 0o777},
		Config: v1.Config{
			Entrypoint: []string{"/usr/sbin/nginx", "-g", "daemon off;"},
			Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			// nginx's word for "finish what you are doing"; SIGTERM drops it.
			StopSignal:   "SIGQUIT",
			ExposedPorts: map[string]struct{}{"80/tcp": {}},
		},
	}
}

// backend is the Go server of examples/web and nothing else.
func backend(version int) Spec {
	return Spec{
		Programs: map[string]Program{"/backend": {
			Package: "./examples/web/backend",
			LDFlags: fmt.Sprintf("-X main.version=%d", version),
		}},
		Config: v1.Config{
			Entrypoint:   []string{"/backend"},
			User:         "65534:65534",
			ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		},
	}
}

// busybox is a shell with the usual small programs. It is the one that is linked
// dynamically: a static glibc cannot look names up.
func busybox() Spec {
	return Spec{
		Packages: []string{"busybox"},
		Files: map[string]File{
			"/etc/passwd":        {Content: passwd},
			"/etc/group":         {Content: group},
			"/etc/nsswitch.conf": {Content: nsswitch},
		},
		Dirs:    map[string]fs.FileMode{"/root": 0o700, "/tmp": fs.ModeSticky | 0o777, "/var/www": 0o755},
		Applets: "/bin/busybox",
		Config: v1.Config{
			Cmd: []string{"sh"},
			Env: []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin"},
		},
	}
}

// operator is examples/operator, a module of its own.
func operator() Spec {
	return Spec{
		Programs: map[string]Program{"/operator": {Dir: "examples/operator", Package: "."}},
		Dirs:     map[string]fs.FileMode{"/tmp": fs.ModeSticky | 0o777},
		Config:   v1.Config{Entrypoint: []string{"/operator"}, User: "65532:65532"},
	}
}
