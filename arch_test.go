// Package hansa_test holds the rules of the house that a compiler does not
// check: who may import whom, which code is pure, what is documented. The rules
// are the tables below; design/ and DESIGN.md say why.
package hansa_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "hansa.dev/hansa"

// mayImport gives for each part, by its path from the root, what its code (not
// its tests) may import of the others. The longest path that matches a package
// counts, and a part may always import itself and what is `internal` beside it.
// The word anything means all parts but those that onlyImportedBy guards.
var mayImport = map[string][]string{
	"internal":  {"internal"},
	"api":       {"internal"},
	"pki":       {"internal"},
	"store":     {"api", "internal"},
	"apiserver": {"api", "pki", "store", "internal"},
	"client":    {"api", "internal"},
	// Two implementations of the door: in process, and over HTTPS.
	"client/direct": {"api", "apiserver/request", "client", "internal"},
	"controller":    {"api", "client", "internal"},
	"scheduler":     {"api", "client", "internal"},
	"network":       {"api", "client", "internal"},
	"runtime":       {"internal"},
	"agent":         {"api", "client", "network/pod", "runtime", "internal"},
	"monitor":       {"api", "client", "internal"},
	"web":           {"internal"},
	"convert":       {"api", "internal"},
	"daemon":        {anything},
	"cmd":           {anything},
	"sim":           {anything},
	"e2e":           {anything},
	"conformance":   {anything},
	"bench":         {anything},
	"hack":          {anything},
	"examples":      {"internal"},
}

const anything = "*"

// families are folders whose packages are siblings: each may import the
// family's root, none may import another.
var families = []string{"controller", "network", "runtime", "store"}

// onlyImportedBy says who alone may import a part, tests included.
var onlyImportedBy = map[string][]string{
	"daemon": {"cmd", "sim", "e2e", "bench"},
	"cmd":    {},
}

// pure are the packages that compute: values in, values out. They link neither
// client-go nor etcd, and read no clock, environment or flags.
var pure = []string{"api", "scheduler/core"}

// pureFiles are files with the same rule in packages that also act: a plan
// beside the step that carries it out. Patterns are those of path.Match.
var pureFiles = []string{"network/*/plan*.go", "controller/*/plan*.go", "agent/*/plan*.go"}

// clockless are the parts where time comes in as an argument or a clock. The
// runtime is not among them: it meets the outside, where time passes by itself.
var clockless = []string{"api", "scheduler", "controller", "network", "agent", "pki", "store", "apiserver", "client", "monitor"}

// reads are the functions that read what must come in as an argument.
var reads = map[string]struct{ clock, surroundings []string }{
	"time": {clock: []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep"}},
	"os":   {surroundings: []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Args"}},
}

// adapters are the files that may read the clock or the environment all the
// same, each with the reason. Only what meets the outside belongs here.
var adapters = map[string]string{
	"apiserver/http/join.go":           "a write to a socket waits for the next one",
	"runtime/containerd/supervisor.go": "hands PATH on to the daemon that it runs",
	"internal/ocibuild/root.go":        "hands the environment on to the go command",
}

// environmentReaders are the parts that may read flags and the environment.
var environmentReaders = []string{"cmd", "daemon", "sim", "e2e", "conformance", "bench", "hack", "examples"}

// heavy are the module paths that pure code does not link.
var heavy = []string{"k8s.io/client-go", "go.etcd.io/etcd"}

// pkg is the part of `go list -json` that the rules are about.
type pkg struct {
	ImportPath, Dir, Doc, ForTest            string
	GoFiles, CgoFiles                        []string
	TestGoFiles, XTestGoFiles                []string
	Imports, TestImports, XTestImports, Deps []string
}

// part is the package's path from the root.
func (p pkg) part() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

// packages lists the module's packages with the Linux files that are built.
var packages = sync.OnceValues(func() ([]pkg, error) {
	if err := watchTree(); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Deps", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.Bytes())
	}
	var list []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		list = append(list, p)
	}
})

// watchTree lists every folder with sources. The go command notes what a test
// opens and reuses its result while that is unchanged; what `go list` reads it
// does not see, so without this a new package would go unchecked.
func watchTree() error {
	return filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (path == "carried" || path == "bin" || len(path) > 1 && path[0] == '.') {
			return fs.SkipDir
		}
		return err
	})
}

func list(t *testing.T) []pkg {
	t.Helper()
	l, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// under reports whether part is root or lies below it.
func under(part, root string) bool { return part == root || strings.HasPrefix(part, root+"/") }

func underAny(part string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return under(part, root) })
}

// ours returns the parts among import paths.
func ours(imports []string) []string {
	var parts []string
	for _, i := range imports {
		if rest, ok := strings.CutPrefix(i, module+"/"); ok {
			parts = append(parts, rest)
		}
	}
	return parts
}

// rule returns the longest key of mayImport that part lies under.
func rule(part string) string {
	best := ""
	for key := range mayImport {
		if under(part, key) && len(key) > len(best) {
			best = key
		}
	}
	return best
}

// sibling returns the member of the family that part belongs to: its first
// folder below the family's root, "" for the root itself.
func sibling(family, part string) string {
	rest, ok := strings.CutPrefix(part, family+"/")
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

// forbidden says why part must not import imported, or "".
func forbidden(part, imported string) string {
	key := rule(part)
	if key == "" {
		return "is in no part of the house that mayImport names"
	}
	for _, family := range families {
		from, to := sibling(family, part), sibling(family, imported)
		if from != "" && to != "" && to != "internal" && from != to {
			return fmt.Sprintf("and its sibling %s/%s must not know each other", family, to)
		}
	}
	if slices.Contains(mayImport[key], anything) || under(imported, key) || underAny(imported, mayImport[key]) {
		return ""
	}
	return fmt.Sprintf("may import %s only", strings.Join(mayImport[key], ", "))
}

func TestImportDirections(t *testing.T) {
	for _, p := range list(t) {
		if p.part() == "" {
			continue // these tests
		}
		for _, imported := range ours(p.Imports) {
			if why := forbidden(p.part(), imported); why != "" {
				t.Errorf("%s imports %s: %s %s", p.part(), imported, p.part(), why)
			}
		}
		for _, imported := range ours(slices.Concat(p.Imports, p.TestImports, p.XTestImports)) {
			for target, importers := range onlyImportedBy {
				if under(imported, target) && !under(p.part(), target) && !underAny(p.part(), importers) {
					t.Errorf("%s imports %s, which only %v may", p.part(), imported, importers)
				}
			}
		}
	}
}

// The rules themselves, on made-up packages, so that a mistake in them fails.
func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		part, imported string
		ok             bool
	}{
		{"store", "api", true},
		{"store/etcd", "store", true},
		{"store/etcd", "store/memory", false},
		{"api", "store", false},
		{"apiserver/http", "apiserver/request", true},
		{"apiserver/request", "client", false},
		{"client/direct", "apiserver/request", true},
		{"client/remote", "apiserver/request", false},
		{"controller/job", "controller", true},
		{"controller/job", "controller/replicaset", false},
		{"controller/job", "store", false},
		{"network/dns", "network/proxy", false},
		{"network/proxy", "network/internal/nft", true},
		{"agent/pod", "runtime/cri", true},
		{"agent", "network/proxy", false},
		{"agent", "network/pod", true},
		{"internal/bundle", "internal/version", true},
		{"internal/bundle", "api", false},
		{"daemon", "store/etcd", true},
		{"nowhere", "api", false},
	} {
		if why := forbidden(c.part, c.imported); (why == "") != c.ok {
			t.Errorf("%s imports %s: %q, want allowed %v", c.part, c.imported, why, c.ok)
		}
	}
}

func TestPurePackagesLinkNoClients(t *testing.T) {
	for _, p := range list(t) {
		if !underAny(p.part(), pure) {
			continue
		}
		for _, dep := range p.Deps {
			if underAny(dep, heavy) {
				t.Errorf("%s is pure and links %s", p.part(), dep)
			}
		}
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	for _, p := range list(t) {
		written := slices.DeleteFunc(slices.Concat(p.GoFiles, p.CgoFiles), func(name string) bool {
			return generated(t, filepath.Join(p.Dir, name))
		})
		if len(written) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.part())
		}
	}
}

// generated reports whether a program wrote the file.
func generated(t *testing.T, file string) bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return ast.IsGenerated(f)
}

// TestNothingReadsItsSurroundings: clock, environment and flags come in as
// arguments; see clockless and environmentReaders.
func TestNothingReadsItsSurroundings(t *testing.T) {
	used := map[string]bool{}
	for _, p := range list(t) {
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles) {
			file := path.Join(p.part(), name)
			isPure := underAny(p.part(), pure) || slices.ContainsFunc(pureFiles, func(pattern string) bool {
				ok, _ := path.Match(pattern, file) // the patterns are constants
				return ok
			})
			// Suites that run an interface's implementations wait like tests do.
			suite := strings.HasSuffix(p.part(), "test")
			checkClock := isPure || underAny(p.part(), clockless) && !suite
			checkEnv := isPure || !underAny(p.part(), environmentReaders)
			for _, found := range readsOf(t, filepath.Join(p.Dir, name)) {
				switch {
				case adapters[file] != "":
					used[file] = true
				case found.clock && checkClock:
					t.Errorf("%s: %s: the clock comes in as an argument here", found.at, found.what)
				case !found.clock && checkEnv:
					t.Errorf("%s: %s: flags and environment are read in cmd and daemon only", found.at, found.what)
				}
			}
		}
	}
	for file := range adapters {
		if !used[file] {
			t.Errorf("adapters names %s, which reads neither clock nor environment (any more)", file)
		}
	}
}

// read is one use of a function of the table reads, or of package flag.
type read struct {
	at, what string
	clock    bool
}

// readsOf finds such uses in a file. A function that is only named counts as
// used: handing time.Now on is what an adapter does.
func readsOf(t *testing.T, file string) []read {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var found []read
	names := map[string]string{} // local name of an import to its path
	for _, spec := range f.Imports {
		importPath, _ := strconv.Unquote(spec.Path.Value) // the parser took it
		name := path.Base(importPath)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = importPath
		if importPath == "flag" {
			found = append(found, read{fset.Position(spec.Pos()).String(), "package flag", false})
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		id, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		rules, ok := reads[names[id.Name]]
		if !ok {
			return true
		}
		what, at := id.Name+"."+sel.Sel.Name, fset.Position(sel.Pos()).String()
		if slices.Contains(rules.clock, sel.Sel.Name) {
			found = append(found, read{at, what, true})
		}
		if slices.Contains(rules.surroundings, sel.Sel.Name) {
			found = append(found, read{at, what, false})
		}
		return true
	})
	return found
}
