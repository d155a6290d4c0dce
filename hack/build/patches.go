package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// patch is a change of one file of the standard library, as some of what is carried
// has it.
type patch struct {
	name, file string
	// old is there once, and becomes new; more is added at the end.
	old, new, more string
}

// patches are few, and only of what no flag changes.
var patches = []patch{
	// A program that may call a method by any name keeps all exported methods of all
	// types that it has: a third of kubectl and a quarter of containerd.
	{
		name: "templates", file: "text/template/exec.go",
		old: "ptr.MethodByName(fieldName)", new: "knownMethod(ptr, fieldName)", more: knownMethod(templateMethods),
	},
	// A shim collects its garbage and gives memory back each 30 s, for as long as it
	// lives: 2 % of a core with 100 of them. It need not when it has none.
	{
		name: "memory", file: "runtime/debug/garbage.go",
		old: "func FreeOSMemory() {\n", new: "func FreeOSMemory() {\n\tif !used() {\n\t\treturn\n\t}\n", more: used,
	},
}

// templateMethods are the methods that templates call in what is carried: those of
// the help of cobra, kubectl and urfave/cli, and of kubectl explain. All other
// templates look at fields and maps, and so do users' (-o go-template), which see
// JSON.
var templateMethods = []string{
	"AllChildCommandsHaveGroup", "CommandPath", "CommandPathPadding", "Commands", "DisplayName", "FlagUsages", "FullName", "Groups",
	"HasAvailableInheritedFlags", "HasAvailableLocalFlags", "HasAvailableSubCommands", "HasExample", "HasFlags", "HasHelpSubCommands",
	"HasInheritedFlags", "HasSubCommands", "InheritedFlags", "IsAdditionalHelpTopicCommand", "IsAvailableCommand", "LocalFlags",
	"Name", "NameAndAliases", "NamePadding", "Names", "PersistentFlags", "Runnable", "String", "UsageString", "UseLine",
	"VisibleCategories", "VisibleCommands", "VisibleFlagCategories", "VisibleFlags", "VisiblePersistentFlags",
}

// knownMethod is the source of how text/template finds a method: by constants, since
// the linker keeps the methods of such names and no other.
func knownMethod(names []string) string {
	var b strings.Builder
	b.WriteString("\nfunc knownMethod(v reflect.Value, name string) reflect.Value {\n\tswitch name {\n")
	for _, n := range names {
		fmt.Fprintf(&b, "\tcase %[1]q:\n\t\treturn v.MethodByName(%[1]q)\n", n)
	}
	b.WriteString("\t}\n\treturn reflect.Value{}\n}\n")
	return b.String()
}

// used is the source of whether much was allocated since it said so last.
const used = `
var usedBefore uint64

func used() bool {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.TotalAlloc-usedBefore < 256<<10 {
		return false
	}
	usedBefore = m.TotalAlloc
	return true
}
`

// apply gives the changed source of a file.
func (p patch) apply(source string) (string, error) {
	if strings.Count(source, p.old) != 1 {
		return "", fmt.Errorf("%s has not %q once any more", p.file, p.old)
	}
	return strings.Replace(source, p.old, p.new, 1) + p.more, nil
}

// overlayDir is the folder of the patches, in that of a set that is being built.
const overlayDir = "patches"

// overlays writes, into a folder of their own below dir, the files that patches
// change and NAME.json for each, which `go build -overlay` reads when it runs in
// module: another module may have another version of Go, and go passes over a file
// of the list that it does not build. It returns the folder.
func overlays(ctx context.Context, module, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOROOT")
	cmd.Dir = module
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the standard library: %w", err)
	}
	dir = filepath.Join(dir, overlayDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, p := range patches {
		file := filepath.Join(strings.TrimSpace(string(out)), "src", p.file)
		source, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		text, err := p.apply(string(source))
		if err != nil {
			return "", err
		}
		instead := filepath.Join(dir, p.name+".go")
		list, err := json.Marshal(map[string]any{"Replace": map[string]string{file: instead}})
		if err != nil {
			return "", err
		}
		if err := errors.Join(os.WriteFile(instead, []byte(text), 0o644), os.WriteFile(filepath.Join(dir, p.name+".json"), list, 0o644)); err != nil {
			return "", err
		}
	}
	return dir, nil
}
