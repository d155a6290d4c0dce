package http

import (
	"bytes"
	"encoding/json"
	"testing"
)

// What is laid out piece by piece is what json.Indent gives, wherever the pieces
// end.
func TestIndenter(t *testing.T) {
	deep := bytes.Repeat([]byte(`{"a":[`), 70)
	deep = append(append(deep, "1"...), bytes.Repeat([]byte("]}"), 70)...)
	for _, text := range []string{
		`{}`, `[]`, `{"a":[]}`, `{"a":{},"b":[{}]}`, `[1,-2.5e3,true,null,"x"]`, `{"a":"{\"b\":[1, 2]}\\","c":{"d":[{"e":"\n\u003c"},{}]}}`, `"a"`, string(deep),
	} {
		var want bytes.Buffer
		if err := json.Indent(&want, []byte(text), "", "  "); err != nil {
			t.Fatal(err)
		}
		for size := 1; size <= len(text); size++ {
			var got bytes.Buffer
			i := &indenter{to: &got}
			for rest := []byte(text + "\n"); len(rest) > 0; {
				n := min(size, len(rest))
				if _, err := i.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if got.String() != want.String() {
				t.Fatalf("in pieces of %d %s is\n%s\nwant\n%s", size, text, got.String(), want.String())
			}
		}
	}
}
