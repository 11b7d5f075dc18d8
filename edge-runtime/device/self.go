package device

import (
	"os"
	"sync/atomic"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/control"
)

// self is what a running process knows of itself beside its agent.
type self struct {
	*device
	started  time.Time
	watchdog time.Duration
	phase    atomic.Value // string
}

// status is that of the agent, completed.
func (s *self) status() agent.Status {
	st := s.agent.Status()
	st.AgentState, _ = s.phase.Load().(string)
	st.PID, st.Started = os.Getpid(), s.started.UTC()
	st.WatchdogSeconds = s.watchdog.Seconds()
	st.JournalState = control.JournalVerified // Open checked the chain, and everything since was appended to it
	if s.damaged != nil {
		st.JournalState = "a damaged journal was put aside: " + s.damaged.Error()
	}
	for i := range st.Channels {
		st.Channels[i].Serving = s.server.Active(st.Channels[i].Model)
	}
	return st
}
