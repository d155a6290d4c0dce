package bundle

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// WindowSize is how far back a frame refers, and so the most that unpacking
// one member holds in memory, in bytes.
const WindowSize = 8 << 20

// Source is a program to be carried: the name it gets and the file it is read
// from.
type Source struct {
	Name, Path string
}

// Compressor writes what it reads as one frame of zstd, whose window is of at most
// WindowSize, without a checksum: the index has a stronger one.
type Compressor func(w io.Writer, r io.Reader) error

// Write writes a bundle of the sources to w, in their order. The same programs
// give the same bytes if the compressor does so.
func Write(w io.Writer, sources []Source, compress Compressor) error {
	out := bufio.NewWriterSize(w, 1<<20)
	members := make([]Member, 0, len(sources))
	var offset int64
	for _, s := range sources {
		m, err := writeMember(out, s, offset, compress)
		if err != nil {
			return fmt.Errorf("write bundle: %s: %w", s.Name, err)
		}
		offset += m.Length
		members = append(members, m)
	}
	index, err := json.Marshal(members)
	if err != nil {
		return fmt.Errorf("write bundle: index: %w", err)
	}
	sum := sha256.Sum256(index)
	footer := binary.BigEndian.AppendUint64(nil, uint64(offset))
	footer = binary.BigEndian.AppendUint64(footer, uint64(len(index)))
	footer = append(append(footer, sum[:]...), magic...)
	// A bufio.Writer keeps its first error and Flush returns it.
	out.Write(index)
	out.Write(footer)
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// writeMember compresses one source to w and returns its row of the index.
func writeMember(w io.Writer, s Source, offset int64, compress Compressor) (Member, error) {
	f, err := os.Open(s.Path)
	if err != nil {
		return Member{}, err
	}
	defer f.Close()
	counted := &counter{w: w}
	h, read := sha256.New(), &counter{w: io.Discard}
	if err := compress(counted, io.TeeReader(f, io.MultiWriter(h, read))); err != nil {
		return Member{}, err
	}
	m := Member{Name: s.Name, Size: read.n, SHA256: hex.EncodeToString(h.Sum(nil)), Offset: offset, Length: counted.n}
	return m, m.check(offset + counted.n)
}

// counter counts the bytes that pass to w.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
