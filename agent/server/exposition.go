package server

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// exposition is metrics in the Prometheus text format.
type exposition struct{ bytes.Buffer }

// label is one of a sample.
type label struct{ name, value string }

// escapes of label values.
var escapes = strings.NewReplacer("\\", `\\`, "\n", `\n`, `"`, `\"`)

// family begins the samples of one name, which emit adds. A sample that is not of
// a certain time has the zero time.
func (e *exposition) family(name, help, kind string, each func(emit func(value float64, at time.Time, labels ...label))) {
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	each(func(value float64, at time.Time, labels ...label) {
		e.WriteString(name)
		for i, l := range labels {
			e.WriteByte("{,"[min(i, 1)])
			e.WriteString(l.name + `="` + escapes.Replace(l.value) + `"`)
		}
		if len(labels) > 0 {
			e.WriteByte('}')
		}
		e.WriteByte(' ')
		e.WriteString(strconv.FormatFloat(value, 'g', -1, 64))
		if !at.IsZero() {
			e.WriteByte(' ')
			e.WriteString(strconv.FormatInt(at.UnixMilli(), 10))
		}
		e.WriteByte('\n')
	})
}

func (s *Server) expose(w http.ResponseWriter, e *exposition) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	s.write(w, e.Bytes())
}
