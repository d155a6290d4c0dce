package daemon

import (
	"time"

	"k8s.io/utils/clock"

	"hansa.dev/hansa/internal/version"
	"hansa.dev/hansa/internal/zpages"
)

// started is when the process began, to the second, as processes tell it.
var started = time.Now().Truncate(time.Second)

// pages are what a component tells of itself.
func (c Config) pages(name, binary string) *zpages.Component {
	return &zpages.Component{
		Name: name, Clock: clock.RealClock{}, Started: started,
		Version: binary, Emulates: version.Minor(), Flags: c.Flags,
	}
}
