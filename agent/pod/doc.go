// Package pod is the pure core of the node agent: what is known of one pod
// (State), what to do next (Plan) and what to report (Status). It does no I/O,
// starts no goroutine and reads no clock; the worker in agent/work feeds it
// what happened and carries out what it decides.
//
// Everything is level-triggered: Plan looks at what is, never at what event
// came, so it may be called at any time and any number of times. An action that
// Plan returned must be announced with Begin before Plan is called again, and
// its outcome with End.
//
//	  ┌────────── SetPod, Observe, Probed, End ──────────┐
//	  ▼                                                  │
//	State ── Plan(now) ──► actions ── Begin ── worker ───┘
//	  └───── Status(now) ──► v1.PodStatus
//
// The life of a pod, as the actions show it:
//
//	prepare ─► mount ┐
//	         ─► sandbox ├─► pull ─► start … (init containers one by one, then
//	                    ┘           all others) … kill ─► stop-sandbox ─►
//	                                release ─► finish ─► remove
//
// Invariants:
//   - a container is started only in a ready sandbox, with the volumes mounted;
//   - no container runs twice at the same time;
//   - the volumes are released after the last container has ended;
//   - finish (the deletion of the API object) comes after release;
//   - restart counts never go down.
package pod
