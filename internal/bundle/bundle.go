// Package bundle carries programs at the end of an executable and unpacks
// them by content hash.
//
// A bundle is appended to a linked binary as it is, so the ELF file before it
// stays valid and linking knows nothing about it. Its parts, in this order:
//
//	member …   one zstd frame per program, back to back
//	index      JSON: [{"name","size","sha256","offset","length"}, …]
//	footer     56 bytes, big endian:
//	             8  length of the members
//	             8  length of the index
//	            32  SHA-256 of the index
//	             8  magic "HANSA\x00B1"
//
// Offsets count from the first member's first byte, so a bundle can be written
// once and appended to any number of binaries. A member is its own frame, so
// that members unpack in parallel and one of them unpacks alone.
//
// The bundle's identity is the SHA-256 over one line "NAME SIZE SHA256\n" for
// each member in order: it follows the programs' content, not how they were
// compressed, and names the folder that they are unpacked into.
package bundle

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// ErrNone says that the file ends in no bundle: a binary linked by plain
// `go build`, which tests and tools are.
var ErrNone = errors.New("this binary carries no programs: it was built with go build, use make build")

// ErrCorrupt says that a bundle is there and is not what was written.
var ErrCorrupt = errors.New("the programs carried by this binary are damaged")

const (
	magic      = "HANSA\x00B1"
	footerSize = 8 + 8 + sha256.Size + len(magic)
	// maxIndex bounds what a damaged footer can make us read.
	maxIndex = 1 << 20
)

// Member is one program in a bundle.
type Member struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`   // bytes unpacked
	SHA256 string `json:"sha256"` // of the unpacked bytes, in hex
	Offset int64  `json:"offset"` // of the zstd frame, from the bundle's start
	Length int64  `json:"length"` // of the zstd frame, in bytes
}

// Bundle is the opened end of an executable. It holds the index only; the file
// is opened again for each unpacking, so a Bundle needs no closing and may be
// used by several goroutines at once.
type Bundle struct {
	// Members in the order they were written. Read only.
	Members []Member
	// ID is the hex SHA-256 that stands for the members' names and content.
	ID string

	path  string
	start int64 // of the first member in the file
}

// Executable opens the bundle of the running program.
func Executable() (*Bundle, error) {
	// The link is opened itself, not the path it shows: it leads to the running
	// file even after that was replaced or deleted by an upgrade.
	return Open("/proc/self/exe")
}

// Open reads the index of the bundle at the end of the file at path. The error
// is ErrNone when there is no bundle and ErrCorrupt when it is damaged.
func Open(path string) (*Bundle, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("open bundle %s: %w", path, err)
	}
	if end < int64(footerSize) {
		return nil, fmt.Errorf("open bundle %s: %w", path, ErrNone)
	}
	var footer [footerSize]byte
	if _, err := f.ReadAt(footer[:], end-int64(footerSize)); err != nil {
		return nil, fmt.Errorf("open bundle %s: read footer: %w", path, err)
	}
	if string(footer[footerSize-len(magic):]) != magic {
		return nil, fmt.Errorf("open bundle %s: %w", path, ErrNone)
	}
	data := binary.BigEndian.Uint64(footer[0:])
	size := binary.BigEndian.Uint64(footer[8:])
	if size > maxIndex || data > uint64(end)-uint64(footerSize) || data+size > uint64(end)-uint64(footerSize) {
		return nil, fmt.Errorf("open bundle %s: %w: the footer points outside the file", path, ErrCorrupt)
	}
	indexAt := end - int64(footerSize) - int64(size)
	index := make([]byte, size)
	if _, err := f.ReadAt(index, indexAt); err != nil {
		return nil, fmt.Errorf("open bundle %s: read index: %w", path, err)
	}
	if sum := sha256.Sum256(index); string(sum[:]) != string(footer[16:16+sha256.Size]) {
		return nil, fmt.Errorf("open bundle %s: %w: the index does not match its hash", path, ErrCorrupt)
	}
	b := &Bundle{path: path, start: indexAt - int64(data)}
	if err := json.Unmarshal(index, &b.Members); err != nil {
		return nil, fmt.Errorf("open bundle %s: %w: index: %w", path, ErrCorrupt, err)
	}
	for _, m := range b.Members {
		if err := m.check(int64(data)); err != nil {
			return nil, fmt.Errorf("open bundle %s: %w: %w", path, ErrCorrupt, err)
		}
	}
	b.ID = identity(b.Members)
	return b, nil
}

// check refuses what no writer of ours produces: above all names that would
// lead out of the folder and frames outside the bundle of data bytes.
func (m Member) check(data int64) error {
	switch {
	case m.Name == "" || m.Name == "." || m.Name == ".." || strings.ContainsAny(m.Name, "/\x00"):
		return fmt.Errorf("member name %q", m.Name)
	case m.Size < 0 || m.Offset < 0 || m.Length < 0 || m.Offset > data || m.Length > data-m.Offset:
		return fmt.Errorf("member %s lies outside the bundle", m.Name)
	}
	if sum, err := hex.DecodeString(m.SHA256); err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("member %s has no SHA-256", m.Name)
	}
	return nil
}

func identity(members []Member) string {
	h := sha256.New()
	for _, m := range members {
		fmt.Fprintf(h, "%s %d %s\n", m.Name, m.Size, m.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// member returns the member called name.
func (b *Bundle) member(name string) (Member, error) {
	for _, m := range b.Members {
		if m.Name == name {
			return m, nil
		}
	}
	return Member{}, fmt.Errorf("no program %q is carried by %s", name, b.path)
}
