package audit

import (
	"fmt"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// where tells channels, devices and deployments.
func (a *auditor) where() {
	a.channels()
	a.devices()
	for _, x := range a.of(evidence.TypeDeployment) {
		d, err := evidence.ParseDeployment(x.e.Predicate)
		if err != nil {
			continue
		}
		verb := "deployed to"
		if d.Action == "rollback" {
			verb = "rolled back to, on"
		}
		a.line("WHERE", Proven, one(x.Bundle), "%s %s (%s) %s, says %s", verb, d.Target, d.Env, minute(d.At), x.KeyName)
	}
	for _, s := range a.r.Sections {
		if s.Name == "WHERE" && len(s.Lines) == 0 {
			a.line("WHERE", Missing, nil, "no channel has named it, no device and no target has reported it")
			return
		}
	}
}

func (a *auditor) channels() {
	newest := map[string]record{}
	for _, r := range a.records {
		newest[r.Channel] = r
	}
	for _, r := range a.records {
		switch {
		case r.Target.Digest == a.digest && r.Rollback != nil:
			a.line("WHERE", Proven, one(r.bundle), "channel %s went back to it at seq %d from %s: %s", r.Channel, r.Seq, r.Rollback.From.Short(), r.Rollback.Reason)
		case r.Target.Digest == a.digest:
			now := "and names it now"
			if n := newest[r.Channel]; n.Seq != r.Seq {
				now = fmt.Sprintf("now seq %d names %s", n.Seq, n.Target.Digest.Short())
			}
			a.line("WHERE", Proven, one(r.bundle), "channel %s named it at seq %d, by %s; %s", r.Channel, r.Seq, r.by, now)
		case r.Rollback != nil && r.Rollback.From == a.digest:
			a.line("WHERE", Proven, one(r.bundle), "channel %s left it at seq %d for %s: %s", r.Channel, r.Seq, r.Target.Digest.Short(), r.Rollback.Reason)
		}
	}
}

// devices tells per device and channel: does it run the digest now, and what happened to it there.
func (a *auditor) devices() {
	type key struct{ device, channel string }
	last := map[key]status{}
	told := map[string]bool{}
	running := 0
	var order []key
	for _, s := range a.statuses { // oldest first per device and channel
		k := key{s.Device, s.Channel}
		if _, ok := last[k]; !ok {
			order = append(order, k)
		}
		last[k] = s
		for _, e := range s.Events {
			text := a.event(s, e)
			if text == "" || told[text] {
				continue // a later report repeats what an earlier one told
			}
			told[text] = true
			a.r.add("WHERE", Line{Text: text, Status: Proven, Proof: one(s.bundle)})
		}
	}
	var proof []artifact.Digest
	for _, k := range order {
		s := last[k]
		if s.Running == a.digest {
			running++
			proof = append(proof, s.bundle)
			a.r.add("WHERE", Line{Text: fmt.Sprintf("%s runs it (%s), as of %s, seq %d", name(s), s.State, minute(s.At), s.Seq), Status: Proven, Proof: one(s.bundle)})
		}
	}
	if len(order) > 1 {
		a.line("WHERE", Proven, proof, "%d of %d devices that have reported run it", running, len(order))
	}
}

func name(s status) string { return "device " + short(s.Device) + " (" + s.Class + ")" }

// event tells one event about this digest; "" when it is about others.
func (a *auditor) event(s status, e evidence.StatusEvent) string {
	why := ""
	if e.Reason != "" {
		why = ": " + strings.TrimSpace(e.Reason)
	}
	at := minute(e.At)
	switch {
	case e.Kind == "rolled-back" && e.From == a.digest:
		return fmt.Sprintf("%s rolled it back to %s, %s%s", name(s), e.Digest.Short(), at, why)
	case e.Kind == "rolled-back" && e.Digest == a.digest:
		return fmt.Sprintf("%s went back to it from %s, %s%s", name(s), e.From.Short(), at, why)
	case e.Digest != a.digest:
		return ""
	case e.Kind == "committed":
		return fmt.Sprintf("%s committed to it, %s", name(s), at)
	case e.Kind == "trial":
		return fmt.Sprintf("%s took it on trial, %s", name(s), at)
	case e.Kind == "quarantined":
		return fmt.Sprintf("%s put it into quarantine, %s%s", name(s), at, why)
	case e.Kind == "refused":
		return fmt.Sprintf("%s refused it, %s%s", name(s), at, why)
	case e.Kind == "fallback":
		return fmt.Sprintf("%s fell back to it, %s%s", name(s), at, why)
	}
	return fmt.Sprintf("%s: %s, %s%s", name(s), e.Kind, at, why)
}
