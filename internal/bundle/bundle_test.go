package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// carried is what the tests bundle: text that compresses, bytes that do not,
// and nothing at all.
func carried() map[string][]byte {
	noise := make([]byte, 1<<18)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	return map[string][]byte{
		"script": []byte("#!/bin/sh\necho \"$0\" \"$@\" $VALUE\n"),
		"zeros":  make([]byte, 1<<20),
		"noise":  noise,
		"empty":  nil,
	}
}

var order = []string{"script", "zeros", "noise", "empty"}

// build writes an executable with a bundle of the carried programs and returns
// its path.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var sources []Source
	for _, name := range order {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, carried()[name], 0o600); err != nil {
			t.Fatal(err)
		}
		sources = append(sources, Source{name, path})
	}
	var out bytes.Buffer
	out.WriteString("the linked binary")
	if err := Write(&out, sources, compress); err != nil {
		t.Fatal(err)
	}
	return write(t, out.Bytes())
}

// compress is a Compressor without another program.
func compress(w io.Writer, r io.Reader) error {
	enc, err := zstd.NewWriter(w, zstd.WithWindowSize(WindowSize), zstd.WithEncoderCRC(false))
	if err != nil {
		return err
	}
	if _, err := io.Copy(enc, r); err != nil {
		return err
	}
	return enc.Close()
}

func write(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string) *Bundle {
	t.Helper()
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func checkUnpacked(t *testing.T, b *Bundle, dir string, paths map[string]string, names ...string) {
	t.Helper()
	if len(paths) != len(names) {
		t.Errorf("%d paths for %d programs: %v", len(paths), len(names), paths)
	}
	for _, name := range names {
		want := filepath.Join(dir, b.ID, name)
		if paths[name] != want {
			t.Errorf("path of %s is %q, want %q", name, paths[name], want)
		}
		data, err := os.ReadFile(want)
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(data, carried()[name]) {
			t.Errorf("%s: %d bytes that differ from the %d carried", name, len(data), len(carried()[name]))
		}
		if info, err := os.Stat(want); err != nil || info.Mode() != 0o755 {
			t.Errorf("%s: mode %v, error %v; want 0755", name, info.Mode(), err)
		}
	}
}

// entries lists what is in the bundle's folder.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestRoundTrip(t *testing.T) {
	b := open(t, build(t))
	dir := t.TempDir()
	paths, err := b.Unpack(dir)
	if err != nil {
		t.Fatal(err)
	}
	checkUnpacked(t, b, dir, paths, order...)
	if got := entries(t, filepath.Join(dir, b.ID)); len(got) != len(order) {
		t.Errorf("the folder holds %v, want the programs alone", got)
	}
}

func TestSameProgramsGiveSameBytes(t *testing.T) {
	x, err := os.ReadFile(build(t))
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(build(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Error("two bundles of the same programs differ")
	}
}

func TestUnpackOneMember(t *testing.T) {
	b := open(t, build(t))
	dir := t.TempDir()
	paths, err := b.Unpack(dir, "noise")
	if err != nil {
		t.Fatal(err)
	}
	checkUnpacked(t, b, dir, paths, "noise")
	if got := entries(t, filepath.Join(dir, b.ID)); len(got) != 1 {
		t.Errorf("the folder holds %v, want noise alone", got)
	}
	if _, err := b.Unpack(dir, "absent"); err == nil || !strings.Contains(err.Error(), `no program "absent"`) {
		t.Errorf("unpacking a member that is not there: %v", err)
	}
}

// A second call costs a stat for each member: it reads no bundle and the files
// stay the ones they were.
func TestSecondUnpackTouchesNothing(t *testing.T) {
	b := open(t, build(t))
	dir := t.TempDir()
	paths, err := b.Unpack(dir)
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]os.FileInfo{}
	for name, path := range paths {
		before[name], _ = os.Stat(path)
	}
	if err := os.Remove(b.path); err != nil { // what is not read cannot be missed
		t.Fatal(err)
	}
	if _, err := b.Unpack(dir); err != nil {
		t.Fatal(err)
	}
	for name, path := range paths {
		if after, err := os.Stat(path); err != nil || !os.SameFile(before[name], after) {
			t.Errorf("%s was written again", name)
		}
	}
}

// What a crash can leave: a temporary file, some members missing, a member cut
// short (by a file system that lost its end), a mode that was not yet set.
func TestUnpackAfterCrash(t *testing.T) {
	b := open(t, build(t))
	dir := t.TempDir()
	folder := filepath.Join(dir, b.ID)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{".noise-123": "part", "zeros": "cut short", "empty": ""} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	paths, err := b.Unpack(dir)
	if err != nil {
		t.Fatal(err)
	}
	checkUnpacked(t, b, dir, paths, order...)
}

func TestConcurrentUnpack(t *testing.T) {
	b := open(t, build(t))
	dir := t.TempDir()
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { _, errs[i] = b.Unpack(dir) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	paths, err := b.Unpack(dir)
	if err != nil {
		t.Fatal(err)
	}
	checkUnpacked(t, b, dir, paths, order...)
	if got := entries(t, filepath.Join(dir, b.ID)); len(got) != len(order) {
		t.Errorf("the folder holds %v, want the programs alone", got)
	}
}

func TestNoBundle(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "short": "ELF", "long": strings.Repeat("ELF", 100)} {
		if _, err := Open(write(t, []byte(content))); !errors.Is(err, ErrNone) {
			t.Errorf("%s file: %v, want %v", name, err, ErrNone)
		}
	}
	if _, err := Executable(); !errors.Is(err, ErrNone) {
		t.Errorf("a test binary: %v, want %v", err, ErrNone)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// Cut anywhere, the end is no bundle any more; cut in the front, the members
// lie elsewhere than the footer says.
func TestTruncated(t *testing.T) {
	data, err := os.ReadFile(build(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{1, len(magic), footerSize - 1, footerSize, footerSize + 1, len(data) / 2} {
		if _, err := Open(write(t, data[:len(data)-cut])); !errors.Is(err, ErrNone) {
			t.Errorf("last %d bytes cut: %v, want %v", cut, err, ErrNone)
		}
	}
	front := data[len("the linked binary")+10:]
	if _, err := Open(write(t, front)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("front cut: %v, want %v", err, ErrCorrupt)
	}
}

func TestCorruptedFooterAndIndex(t *testing.T) {
	data, err := os.ReadFile(build(t))
	if err != nil {
		t.Fatal(err)
	}
	footer := len(data) - footerSize
	index := footer - int(binary.BigEndian.Uint64(data[footer+8:]))
	for name, at := range map[string]int{
		"length of members": footer, "length of index": footer + 8, "hash": footer + 16,
		"index": index, "index end": footer - 1,
	} {
		damaged := bytes.Clone(data)
		damaged[at] ^= 0xff
		if _, err := Open(write(t, damaged)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s flipped: %v, want %v", name, err, ErrCorrupt)
		}
	}
}

// Every byte of the members counts: one flipped anywhere is found, and nothing
// appears under the member's name.
func TestCorruptedMember(t *testing.T) {
	path := build(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	intact := open(t, path)
	for _, m := range intact.Members {
		for _, at := range []int64{0, m.Length / 2, m.Length - 1} {
			t.Run(fmt.Sprintf("%s+%d", m.Name, at), func(t *testing.T) {
				damaged := bytes.Clone(data)
				damaged[intact.start+m.Offset+at] ^= 0x55
				b := open(t, write(t, damaged))
				dir := t.TempDir()
				if _, err := b.Unpack(dir, m.Name); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("error %v, want %v", err, ErrCorrupt)
				}
				if got := entries(t, filepath.Join(dir, b.ID)); len(got) != 0 {
					t.Errorf("left behind: %v", got)
				}
			})
		}
	}
}

// An index that only an attacker writes, with a right hash: names that lead
// elsewhere, frames outside the bundle.
func TestRefusedIndex(t *testing.T) {
	sum := strings.Repeat("00", sha256.Size)
	for _, m := range []Member{
		{Name: "../evil", SHA256: sum}, {Name: "", SHA256: sum}, {Name: "..", SHA256: sum},
		{Name: "a", SHA256: "short"}, {Name: "a", SHA256: sum, Offset: 1}, {Name: "a", SHA256: sum, Length: 1},
		{Name: "a", SHA256: sum, Offset: -1}, {Name: "a", SHA256: sum, Size: -1},
		{Name: "a", SHA256: sum, Offset: 1 << 62, Length: 1 << 62},
	} {
		index, err := json.Marshal([]Member{m})
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.Sum256(index)
		data := bytes.Clone(index)
		data = binary.BigEndian.AppendUint64(data, 0)
		data = binary.BigEndian.AppendUint64(data, uint64(len(index)))
		data = append(append(data, hash[:]...), magic...)
		if _, err := Open(write(t, data)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want %v", index, err, ErrCorrupt)
		}
	}
}

// Exec replaces the process, so the test runs itself again to be replaced.
func TestExec(t *testing.T) {
	if path := os.Getenv("BUNDLE_TEST_EXEC"); path != "" {
		b := open(t, path)
		t.Fatal(b.Exec(os.Getenv("BUNDLE_TEST_DIR"), "script", []string{"one", "two words"}, []string{"VALUE=three"}))
	}
	path, dir := build(t), t.TempDir()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestExec$")
	cmd.Env = append(os.Environ(), "BUNDLE_TEST_EXEC="+path, "BUNDLE_TEST_DIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// The shell takes its name from the path that the kernel gave it.
	want := filepath.Join(dir, open(t, path).ID, "script") + " one two words three\n"
	if string(out) != want {
		t.Errorf("output %q, want %q", out, want)
	}
}
