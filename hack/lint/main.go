// Command lint checks the rules of style that a machine can: run it from the
// root of the checkout, with `make lint`. What it finds it prints, one finding
// a line, and then exits with 1. Import directions and the like are tests, in
// arch_test.go.
//
// A file or function that has to be longer than the rule says why in a comment
// of its own, `//lint:long REASON`: for a file before the package clause, for a
// function directly above it or in it. Generated files are left alone.
package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	maxFile     = 600
	maxFunction = 100
)

func main() {
	findings, err := lintTree(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(1)
	}
	for _, f := range findings {
		fmt.Println(f)
	}
	if len(findings) > 0 {
		fmt.Fprintf(os.Stderr, "lint: %d findings\n", len(findings))
		os.Exit(1)
	}
}

// lintTree checks every Go file below root, those of the carried module too.
func lintTree(root string) ([]string, error) {
	var findings []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// What the go command does not see is not ours to judge.
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || path == filepath.Join(root, "bin")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found, err := lintFile(path, src)
		findings = append(findings, found...)
		return err
	})
	return findings, err
}

// promise matches a word that puts work off. It stands for itself, so that
// prose may speak of context.TODO.
var promise = regexp.MustCompile(`(^|[^.\w])(TODO|FIXME|XXX)\b`)

// lintFile returns the findings in one file, in the order of its lines.
func lintFile(path string, src []byte) ([]string, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	if ast.IsGenerated(f) {
		return nil, nil
	}
	type finding struct {
		line int
		text string
	}
	var found []finding
	say := func(pos token.Pos, format string, args ...any) {
		found = append(found, finding{fset.Position(pos).Line, fmt.Sprintf(format, args...)})
	}
	formatted, err := format.Source(src)
	if err != nil {
		return nil, fmt.Errorf("format %s: %w", path, err)
	}
	if !bytes.Equal(formatted, src) {
		say(f.Package, "not formatted by gofmt")
	}
	if lines := bytes.Count(src, []byte("\n")); lines > maxFile && !excused(f, f.FileStart, f.Package) {
		say(f.Package, "file has %d lines, more than %d", lines, maxFile)
	}
	for _, group := range f.Comments {
		for _, c := range group.List {
			if promise.MatchString(c.Text) {
				say(c.Pos(), "comment puts work off: do it, or file it")
			}
			if strings.TrimSpace(c.Text) == "//lint:long" {
				say(c.Pos(), "lint:long gives no reason")
			}
		}
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
		from := fn.Pos()
		if fn.Doc != nil {
			from = fn.Doc.Pos()
		}
		if n > maxFunction && !excused(f, from, fn.End()) {
			say(fn.Pos(), "function %s has %d lines, more than %d", fn.Name.Name, n, maxFunction)
		}
	}
	if strings.HasSuffix(path, "_test.go") {
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			id, ok := sel.X.(*ast.Ident)
			switch {
			case !ok:
			case id.Name == "time" && sel.Sel.Name == "Sleep":
				say(sel.Pos(), "test sleeps: wait for a condition")
			case slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) && (id.Name == "t" || id.Name == "b" || id.Name == "f"):
				say(sel.Pos(), "test skips: make it run everywhere, or fail")
			}
			return true
		})
	}
	slices.SortStableFunc(found, func(a, b finding) int { return a.line - b.line })
	texts := make([]string, len(found))
	for i, x := range found {
		texts[i] = fmt.Sprintf("%s:%d: %s", path, x.line, x.text)
	}
	return texts, nil
}

// excused reports whether a comment between the positions is `//lint:long`
// with a reason.
func excused(f *ast.File, from, to token.Pos) bool {
	for _, group := range f.Comments {
		for _, c := range group.List {
			if c.Pos() >= from && c.Pos() < to && strings.HasPrefix(c.Text, "//lint:long ") {
				return true
			}
		}
	}
	return false
}
