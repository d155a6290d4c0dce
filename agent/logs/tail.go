package logs

import (
	"bytes"
	"io"
	"os"
)

// A line ends with its last record; one that was begun last, of each stream, is
// a line as well.

// tailOffset finds where the last lines begin, reading backwards. With a
// stream chosen, lines of the other do not count.
func tailOffset(f *os.File, o Options) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || o.Tail == 0 {
		return end, err
	}
	const block = 32 << 10
	var found int64
	var seen [2]bool // a record of the stream, further back
	isEnd := func(line []byte) bool {
		i, partial := lineOf(line, o.Stream)
		if i < 0 {
			return false
		}
		last := !seen[i]
		seen[i] = true
		return last || !partial
	}
	var tail []byte // begins in the middle of a record
	for at := end; at > 0; {
		size := min(int64(block), at)
		at -= size
		chunk := make([]byte, size, size+int64(len(tail)))
		if _, err := f.ReadAt(chunk, at); err != nil && err != io.EOF {
			return 0, err
		}
		data := append(chunk, tail...)
		// Take whole records from the back.
		for {
			i := bytes.LastIndexByte(bytes.TrimSuffix(data, []byte{'\n'}), '\n')
			if i < 0 {
				break
			}
			if isEnd(data[i+1:]) {
				if found++; found > o.Tail {
					return at + int64(len(data)), nil
				}
			}
			data = data[:i+1]
		}
		tail = data
	}
	if isEnd(tail) {
		if found++; found > o.Tail {
			return int64(len(tail)), nil
		}
	}
	return 0, nil
}

// lineCount counts the lines of records that are given one after the other, and
// when they are given once more says which end a line.
type lineCount struct {
	stream  string   // or empty for both
	records int64    // so far
	open    [2]int64 // the number of each stream's last record, when that is a part
	lines   int64    // that have ended
}

func (c *lineCount) add(line []byte) {
	c.records++
	i, partial := lineOf(line, c.stream)
	if i < 0 {
		return
	}
	c.open[i] = 0
	if partial {
		c.open[i] = c.records
	} else {
		c.lines++
	}
}

// all is how many lines there are.
func (c *lineCount) all() int64 {
	n := c.lines
	for _, open := range c.open {
		if open > 0 {
			n++
		}
	}
	return n
}

// isEnd says whether a record ends a line; n is its number, from 1.
func (c *lineCount) isEnd(n int64, line []byte) bool {
	i, partial := lineOf(line, c.stream)
	return i >= 0 && (!partial || c.open[i] == n)
}

// lineOf says of which stream a record is, -1 for one that is not whole or of a
// stream that is not asked for, and whether it is only a part of a line.
func lineOf(line []byte, stream string) (index int, partial bool) {
	r, err := parse(line)
	if err != nil || !bytes.HasSuffix(line, []byte{'\n'}) || stream != "" && stream != r.stream {
		return -1, false
	}
	return streamIndex(r.stream), r.partial
}

// streamIndex numbers the streams.
func streamIndex(stream string) int {
	if stream == Stderr {
		return 1
	}
	return 0
}
