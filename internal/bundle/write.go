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

	"github.com/klauspost/compress/zstd"
)

// windowSize is how far back a frame refers, and so the most that unpacking
// one member holds in memory, in bytes.
const windowSize = 8 << 20

// Source is a program to be carried: the name it gets and the file it is read
// from.
type Source struct {
	Name, Path string
}

// Write writes a bundle of the sources to w, in their order. The same programs
// give the same bytes.
func Write(w io.Writer, sources []Source) error {
	out := bufio.NewWriterSize(w, 1<<20)
	members := make([]Member, 0, len(sources))
	var offset int64
	for _, s := range sources {
		m, err := writeMember(out, s, offset)
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
func writeMember(w io.Writer, s Source, offset int64) (Member, error) {
	f, err := os.Open(s.Path)
	if err != nil {
		return Member{}, err
	}
	defer f.Close()
	counted := &counter{w: w}
	// Without the frame's own checksum: the index has a stronger one.
	enc, err := zstd.NewWriter(counted, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithWindowSize(windowSize), zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return Member{}, err
	}
	h := sha256.New()
	size, err := io.Copy(io.MultiWriter(enc, h), f)
	if err != nil {
		return Member{}, err
	}
	if err := enc.Close(); err != nil {
		return Member{}, err
	}
	m := Member{Name: s.Name, Size: size, SHA256: hex.EncodeToString(h.Sum(nil)), Offset: offset, Length: counted.n}
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
