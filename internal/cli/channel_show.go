package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/publish"
)

// timeLayout is how records' times are shown; they are UTC.
const timeLayout = "2006-01-02 15:04 UTC"

// printRecord shows one record; the target's reference is the last line on stdout.
func (c *Call) printRecord(verb string, j recordJSON) error {
	if c.UI.JSON {
		j.Schema = schemaBase + "channel-" + verb + "/v1"
		return c.UI.PrintJSON(j)
	}
	r := j.Record
	c.UI.Field("channel", "%s seq %s, environment %s", r.Channel, ui.Count(r.Seq), r.Env)
	if r.Generation > 1 {
		c.UI.Field("generation", "%d", r.Generation)
	}
	c.UI.Field("target", "%s %s", r.Target.Name, r.Target.Version)
	if r.Freeze != nil {
		c.UI.Field("FROZEN", "%s", r.Freeze.Reason)
		c.UI.Field("", "devices keep what they run and activate nothing")
	}
	if r.Rollback != nil {
		c.UI.Field("rollback", "from %s: %s", r.Rollback.From.Short(), r.Rollback.Reason)
	}
	if r.Rollout != nil {
		c.UI.Field("rollout", "%s at %v %%: %s of %s buckets take the target, the others keep what they run",
			r.Rollout.ID, r.Rollout.Percent, ui.Count(int64(r.Rollout.Reach())), ui.Count(channel.Buckets))
	}
	if a := audience(r.Audience); a != "" {
		c.UI.Field("audience", "%s", a)
	}
	if r.EpochFloor > 0 || r.Target.Epoch > 0 {
		c.UI.Field("epoch", "%d, floor %d", r.Target.Epoch, r.EpochFloor)
	}
	for _, t := range r.Keep {
		c.UI.Field("keeps", "%s %s %s", t.Name, t.Version, t.Digest)
	}
	if j.KeyName != "" {
		c.UI.Field("signed by", "%s (%s key %.12s)", j.KeyName, j.Role, j.KeyID)
	}
	c.UI.Field("issued", "%s", r.Issued.Format(timeLayout))
	c.printExpiry(r)
	if j.Bundle != "" {
		c.UI.Field("record", "%s", j.Bundle)
	}
	c.UI.Data("%s", j.Ref)
	return nil
}

// printExpiry says how long devices may activate what the record names.
func (c *Call) printExpiry(r *channel.Record) {
	if left := r.Expires.Sub(c.Env.Now()); left > 0 {
		c.UI.Field("expires", "%s, in %s", r.Expires.Format(timeLayout), leftOf(left))
	} else {
		c.UI.Field("STALE", "it expired on %s, %s ago: devices keep what they run and activate nothing", r.Expires.Format(timeLayout), ui.Duration(-left))
	}
}

func audience(a channel.Audience) string {
	parts := []string{}
	if len(a.Classes) > 0 {
		parts = append(parts, "class "+strings.Join(a.Classes, " or "))
	}
	for _, k := range slices.Sorted(maps.Keys(a.Labels)) {
		parts = append(parts, k+"="+a.Labels[k])
	}
	return strings.Join(parts, ", ")
}

// deedRefresh is what a refresh does.
const deedRefresh = "refresh"

// deed says in a few words what a record did to the channel. before is the record that it follows, nil when that is not known.
func deed(before, r *channel.Record) string {
	step := channel.Update
	if before != nil {
		s, err := channel.Follows(&channel.Head{Record: before, Bundle: r.Prev}, &channel.Head{Record: r}, false)
		if err == nil {
			step = s.Kind
		}
	}
	var what string
	switch {
	case step == channel.Refresh:
		return deedRefresh
	case step == channel.Halts:
		return "freeze: " + r.Freeze.Reason
	case step == channel.Lifts:
		return "unfreeze"
	case r.Rollback != nil:
		what = "rollback: " + r.Rollback.Reason
	default:
		what = phases(before, r)
	}
	if r.Freeze != nil {
		return "frozen, " + what
	}
	return what
}

// phases says how a publication moves a gradual rollout.
func phases(before, r *channel.Record) string {
	o := r.Rollout
	same := before != nil && before.Target.Digest == r.Target.Digest
	var was *channel.Rollout
	if same {
		was = before.Rollout
	}
	switch {
	case o == nil && was != nil:
		return fmt.Sprintf("phase %s %v -> 100 %%", was.ID, was.Percent)
	case o == nil:
		return "publish"
	case was == nil && same:
		return fmt.Sprintf("LOWERED to phase %s %v %%", o.ID, o.Percent)
	case was == nil:
		return fmt.Sprintf("publish, phase %s %v %%", o.ID, o.Percent)
	case was.ID != o.ID:
		return fmt.Sprintf("OTHER ROLLOUT %s %v %% -> %s %v %%", was.ID, was.Percent, o.ID, o.Percent)
	case o.Percent < was.Percent:
		return fmt.Sprintf("LOWERED phase %s %v -> %v %%", o.ID, was.Percent, o.Percent)
	}
	return fmt.Sprintf("phase %s %v -> %v %%", o.ID, was.Percent, o.Percent)
}

// phaseWarnings tells a publisher what a change of phase does not do.
func (c *Call) phaseWarnings(before, r *channel.Record) {
	if before == nil {
		return
	}
	was, o := before.Rollout, r.Rollout
	if before.Target.Digest != r.Target.Digest {
		if was != nil && was.Reach() < channel.Buckets && o != nil && o.ID != was.ID {
			c.UI.Warn("rollout %s of %s ends at %v %%; rollout %s takes other devices first: the devices of both will run %s",
				was.ID, before.Target.Version, was.Percent, o.ID, r.Target.Version)
		}
		return
	}
	switch {
	case o == nil:
	case was == nil:
		c.UI.Warn("every device was told to take %s before: this phase takes it from nobody who has it (to go back: waybill channel rollback)", r.Target.Version)
	case was.ID != o.ID:
		c.UI.Warn("another rollout name picks other devices: those that took %s under %s keep it, so in the end up to %s of %s buckets have it",
			r.Target.Version, was.ID, ui.Count(int64(min(was.Reach()+o.Reach(), channel.Buckets))), ui.Count(channel.Buckets))
	case o.Percent < was.Percent:
		c.UI.Warn("a lower percentage takes %s from nobody who has it: it only stops devices that did not come to it yet (to go back: waybill channel rollback)", r.Target.Version)
	}
}

func withinFlag() ucli.Flag {
	return &ucli.StringFlag{Name: "fail-if-expires-within", Usage: "exit code 1 when the record expires within `TIME` (2d, 12h), for monitoring"}
}

// leftOf is how long a record is still valid, to the nearest of what is shown: 7 d 0 h a minute after 7 days were promised.
func leftOf(d time.Duration) string {
	unit := time.Second
	switch {
	case d >= 24*time.Hour-30*time.Second:
		unit = time.Hour
	case d >= time.Hour-time.Second/2:
		unit = time.Minute
	}
	return ui.Duration(d.Round(unit))
}

// expiresWithin is the check behind --fail-if-expires-within.
func (c *Call) expiresWithin(r *channel.Record, repo string) error {
	if !c.IsSet("fail-if-expires-within") {
		return nil
	}
	d, err := days("fail-if-expires-within", c.String("fail-if-expires-within"))
	if err != nil {
		return err
	}
	left := r.Expires.Sub(c.Env.Now())
	if left > d {
		return nil
	}
	what := fmt.Sprintf("expires in %s", leftOf(left))
	if left <= 0 {
		what = fmt.Sprintf("expired %s ago", ui.Duration((-left).Round(time.Second)))
	}
	return diag.New(diag.Failure, "channel %s seq %d %s", r.Channel, r.Seq, what).
		Line("devices go on with what they run; what they do not have yet they will not activate").
		Hint("waybill channel refresh %s %s --key refresher.key", r.Channel, repo)
}

// within checks the flag before anything is read.
func (c *Call) within() error {
	if !c.IsSet("fail-if-expires-within") {
		return nil
	}
	_, err := days("fail-if-expires-within", c.String("fail-if-expires-within"))
	return err
}

func channelShowCommand() Command {
	return Command{
		Name: "show", Summary: "print what a channel tells devices now",
		Args: "CHANNEL REPO", Min: 2, Max: 2,
		Long:     "Reads and verifies the newest record of the channel in the model's repository. A tag on REPO is ignored.",
		Examples: []string{"waybill channel show prod reg.example/ml/churn", "waybill channel show prod reg.example/ml/churn --fail-if-expires-within 2d -q"},
		Flags:    append(trustFlags(), withinFlag()),
		Exits:    []diag.Code{diag.Failure, diag.Verification, diag.Registry, diag.NotFound},
		See:      []string{"channel history", "channel refresh"},
		Run:      runChannelShow,
	}
}

func runChannelShow(ctx context.Context, c *Call) error {
	if err := c.within(); err != nil {
		return err
	}
	doc, _, err := c.trustFile()
	if err != nil {
		return err
	}
	ref, p, st, err := c.channelState(ctx, c.Args[0], c.Args[1], doc)
	if err != nil {
		return err
	}
	defer p.Close()
	j := c.recordJSON(ref, st.Head)
	if j.Published = st.Head.Manifest.Digest == st.Tag; !j.Published {
		c.UI.Warn("seq %d stands in the repository, but the channel's tag was not moved to it; the next publication does that", st.Head.Record.Seq)
	}
	if err := c.printRecord("show", j); err != nil {
		return err
	}
	return c.expiresWithin(st.Head.Record, ref.Name())
}

// historyRows are the lines of a survey in at most 100 columns, which a longer reason is cut to.
func historyRows(lines []publish.Line) [][]string {
	const width = 100
	rows := [][]string{{"seq", "issued (UTC)", "version", "target", "by", "what"}}
	run := 0 // refreshes in a row, of which the newest is shown
	for i, l := range lines {
		if l.Entry == nil {
			run = 0
			rows = append(rows, []string{ui.Count(l.Seq), "", "", "", "", "FAULT " + strings.Join(l.Faults, "; ")})
			continue
		}
		var before *channel.Record
		if i+1 < len(lines) && lines[i+1].Entry != nil {
			before = lines[i+1].Entry.Record
		}
		r := l.Entry.Record
		what := deed(before, r)
		if run++; what != deedRefresh || len(l.Faults) > 0 {
			run = 0
		}
		if run > 1 {
			rows[len(rows)-1][len(rows[0])-1] = fmt.Sprintf("%d refreshes, the first with seq %s", run, ui.Count(r.Seq))
			continue
		}
		if len(l.Faults) > 0 {
			what = "FAULT " + strings.Join(l.Faults, "; ")
		}
		rows = append(rows, []string{ui.Count(r.Seq), r.Issued.Format("2006-01-02 15:04"), clipTo(r.Target.Version, 14), r.Target.Digest.Short(), clipTo(l.Entry.KeyName, 14), what})
	}
	used := 0
	for col := range len(rows[0]) - 1 {
		w := 0
		for _, r := range rows {
			w = max(w, ui.Width(r[col]))
		}
		used += w + 2
	}
	for _, r := range rows {
		r[len(r)-1] = clipTo(r[len(r)-1], max(width-used, 12))
	}
	return rows
}

// clipTo cuts a text to at most n characters.
func clipTo(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-3]) + "..."
}
