package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

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

// methodByName is how text/template finds a method, anyMethod what stands there
// instead.
const (
	methodByName = "ptr.MethodByName(fieldName)"
	anyMethod    = "knownMethod(ptr, fieldName)"
)

// namedTemplates gives the source of text/template's exec.go that finds no methods
// but those of the names. A program that may call a method by any name keeps all
// exported methods of all types that it has: a third of kubectl and a quarter of
// containerd.
func namedTemplates(source string, names []string) (string, error) {
	if strings.Count(source, methodByName) != 1 {
		return "", fmt.Errorf("text/template does not find methods by %s any more", methodByName)
	}
	var b strings.Builder
	b.WriteString(strings.Replace(source, methodByName, anyMethod, 1))
	b.WriteString("\nfunc knownMethod(v reflect.Value, name string) reflect.Value {\n\tswitch name {\n")
	for _, n := range names {
		// The linker keeps the methods of a name only if it is a constant.
		fmt.Fprintf(&b, "\tcase %[1]q:\n\t\treturn v.MethodByName(%[1]q)\n", n)
	}
	b.WriteString("\t}\n\treturn reflect.Value{}\n}\n")
	return b.String(), nil
}

// overlayDir is the folder of the overlay, in that of a set that is being built,
// and overlayFile the overlay's name in it.
const (
	overlayDir  = "lean"
	overlayFile = "overlay.json"
)

// overlay writes what `go build -overlay` reads, and the file that it names, into
// a folder of their own below dir, and returns that.
func overlay(dir string) (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the standard library: %w", err)
	}
	file := filepath.Join(strings.TrimSpace(string(out)), "src", "text", "template", "exec.go")
	source, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	text, err := namedTemplates(string(source), templateMethods)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, overlayDir)
	instead := filepath.Join(dir, "exec.go")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {file: instead}})
	if err != nil {
		return "", err
	}
	return dir, errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(instead, []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, overlayFile), list, 0o644))
}
