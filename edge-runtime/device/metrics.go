package device

import (
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/monitor"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/ui"
)

// states are all values of ChannelStatus.State.
func states() []string {
	return []string{
		agent.StateEmpty, agent.StateCommitted, string(state.Fetching), string(state.Fetched), string(state.Verified),
		string(state.Admitted), string(state.Staged), string(state.Shadow), string(state.Trial),
	}
}

// collect writes what the agent knows, worked out from its status: what a device served last year leaves no series.
func (s *self) collect(e *monitor.Exposition) {
	collectStatus(e, s.status(), s.agent.Counts, time.Now())
}

func collectStatus(e *monitor.Exposition, st agent.Status, counts func(channel string) agent.Counts, now time.Time) {
	e.Family("waybill_agent_info", "gauge", "The agent: its version and device.")
	e.Sample("waybill_agent_info", 1, "version", st.Version, "device", st.Device)
	e.Gauge("waybill_agent_start_time_seconds", "Start of the agent, Unix time.", epoch(st.Started))
	e.Gauge("waybill_trust_version", "Version of the trust document in force.", float64(st.Trust))
	e.Gauge("waybill_journal_entries", "Entries of the journal.", float64(st.Journal.Entries))
	e.Gauge("waybill_state_free_bytes", "Free space of the disk that holds the state.", float64(st.Free))
	e.Gauge("waybill_clock_floor_lag_seconds", "How far the clock is behind the last signed time.", max(st.ClockFloor.Sub(now), 0).Seconds())

	each := func(name, kind, help string, value func(c agent.ChannelStatus) float64) {
		e.Family(name, kind, help)
		for _, c := range st.Channels {
			e.Sample(name, value(c), "channel", c.Channel, "model", c.Model)
		}
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	e.Family("waybill_channel_state", "gauge", "1 for the state that the channel is in.")
	for _, c := range st.Channels {
		for _, x := range states() {
			e.Sample("waybill_channel_state", flag(c.State == x), "channel", c.Channel, "model", c.Model, "state", x)
		}
	}
	each("waybill_channel_seq", "gauge", "Seq of the accepted record.", func(c agent.ChannelStatus) float64 { return float64(c.Seq) })
	each("waybill_channel_epoch_floor", "gauge", "Security floor: nothing of a lower epoch is activated.", func(c agent.ChannelStatus) float64 { return float64(c.EpochFloor) })
	each("waybill_channel_expiry_timestamp_seconds", "gauge", "End of the accepted record, Unix time.", func(c agent.ChannelStatus) float64 { return epoch(c.Expires) })
	each("waybill_channel_stale", "gauge", "1 when the accepted record has expired: nothing new is activated.", func(c agent.ChannelStatus) float64 { return flag(c.Stale) })
	each("waybill_channel_frozen", "gauge", "1 while the channel is frozen.", func(c agent.ChannelStatus) float64 { return flag(c.Frozen != nil) })
	each("waybill_channel_pinned", "gauge", "1 after a rollback on this device, until the channel moves on.", func(c agent.ChannelStatus) float64 { return flag(c.Pinned) })
	each("waybill_channel_waiting", "gauge", "1 while the device's own policy does not allow the target.", func(c agent.ChannelStatus) float64 { return flag(c.Waiting != nil) })
	each("waybill_channel_quarantined", "gauge", "Artifacts that are not tried again under this record.", func(c agent.ChannelStatus) float64 { return float64(len(c.Quarantine)) })
	each("waybill_channel_serving", "gauge", "1 while a model of the channel answers requests.", func(c agent.ChannelStatus) float64 { return flag(c.Serving != "") })

	e.Family("waybill_model_info", "gauge", "What is committed on the channel.")
	for _, c := range st.Channels {
		if c.Current != nil {
			e.Sample("waybill_model_info", 1, "channel", c.Channel, "model", c.Model, "version", ui.Clip(c.Current.Version, 64), "digest", string(c.Current.Digest))
		}
	}
	each("waybill_model_since_timestamp_seconds", "gauge", "When the committed model became so, Unix time.", func(c agent.ChannelStatus) float64 {
		if c.Current == nil {
			return 0
		}
		return epoch(c.Current.Since)
	})
	each("waybill_probe_seconds", "gauge", "Median time of a golden vector of the committed model when it was last measured.", func(c agent.ChannelStatus) float64 {
		if c.Current == nil || c.Current.Proof == nil {
			return 0
		}
		return c.Current.Proof.P50.Seconds()
	})

	e.Family("waybill_rollbacks_total", "counter", "Times that the device went back, by reason, since the agent started.")
	for _, c := range st.Channels {
		n := counts(c.Channel)
		for _, r := range agent.Reasons() {
			e.Sample("waybill_rollbacks_total", float64(n.Rollbacks[r]), "channel", c.Channel, "model", c.Model, "reason", r)
		}
	}
	e.Family("waybill_polls_total", "counter", "Looks at the channel by outcome, since the agent started.")
	for _, c := range st.Channels {
		n := counts(c.Channel)
		for _, r := range agent.Outcomes() {
			e.Sample("waybill_polls_total", float64(n.Polls[r]), "channel", c.Channel, "model", c.Model, "outcome", r)
		}
	}
	each("waybill_poll_success_timestamp_seconds", "gauge", "Last look at the channel that did not fail, Unix time; 0: none yet.", func(c agent.ChannelStatus) float64 { return epoch(counts(c.Channel).LastPoll) })
	each("waybill_download_bytes_total", "counter", "Bytes fetched from carriers since the agent started.", func(c agent.ChannelStatus) float64 { return float64(counts(c.Channel).Bytes) })
	each("waybill_refusals_total", "counter", "Records and artifacts refused since the agent started.", func(c agent.ChannelStatus) float64 { return float64(counts(c.Channel).Refused) })
	each("waybill_commits_total", "counter", "Artifacts that passed their trial since the agent started.", func(c agent.ChannelStatus) float64 { return float64(counts(c.Channel).Committed) })
}

// epoch is 0 for the zero time.
func epoch(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1e3
}
