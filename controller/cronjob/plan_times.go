package cronjob

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"

	"hansa.dev/hansa/api/kinds"
)

// mostMissed is how many runs may be missed without a word about it.
const mostMissed = 100

// errNever is about a schedule that no day fits, as 31 February.
var errNever = errors.New("no time in the next five years fits it")

// readSchedule reads a cron job's schedule, which is about its zone: the one that
// it names, or else local.
func readSchedule(c *batchv1.CronJob, local *time.Location) (cron.Schedule, error) {
	schedule, err := kinds.ParseSchedule(c.Spec.Schedule)
	if err != nil {
		return nil, err
	}
	// The parser gives a zone to a schedule that has one in its text only.
	if s, ok := schedule.(*cron.SpecSchedule); ok && !strings.Contains(c.Spec.Schedule, "TZ") {
		s.Location = local
		if c.Spec.TimeZone != nil {
			if s.Location, err = time.LoadLocation(*c.Spec.TimeZone); err != nil {
				return nil, fmt.Errorf("time zone %q: %w", *c.Spec.TimeZone, err)
			}
		}
	}
	return schedule, nil
}

// runs are the times of a schedule after from. Those of "@every D" are D, 2D, …
// after it.
type runs struct {
	schedule cron.Schedule
	from     time.Time
}

// next is the first run after a time, or the zero time when there is none.
func (r runs) next(after time.Time) time.Time {
	if after.Before(r.from) {
		after = r.from
	}
	if every, ok := r.schedule.(cron.ConstantDelaySchedule); ok {
		return r.from.Add((after.Sub(r.from)/every.Delay + 1) * every.Delay)
	}
	return r.schedule.Next(after)
}

// last is the latest run that is not after now, if there is one. However long ago
// from is, few times are looked at: runs never go back when the time after which
// they are asked for goes on, so the last one is found by halves.
func (r runs) last(now time.Time) (time.Time, bool) {
	due := func(after time.Time) bool {
		t := r.next(after)
		return !t.IsZero() && !t.After(now)
	}
	if !due(r.from) {
		return time.Time{}, false
	}
	seconds := int(now.Sub(r.from)/time.Second) + 1
	n := sort.Search(seconds, func(i int) bool { return !due(r.from.Add(time.Duration(i) * time.Second)) })
	return r.next(r.from.Add(time.Duration(n-1) * time.Second)), true
}

// tooMany says whether more runs than mostMissed are after since and not after
// now.
func (r runs) tooMany(since, now time.Time) bool {
	t := since
	for range mostMissed + 1 {
		if t = r.next(t); t.IsZero() || t.After(now) {
			return false
		}
	}
	return true
}
