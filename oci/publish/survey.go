package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// Line is one number of a channel: the record there and what is wrong with it or instead of it.
type Line struct {
	Seq    int64
	Entry  *Entry // nil when nothing there verifies
	Faults []string
}

// maxGone bounds how many numbers in a row are looked for after nothing was found.
const maxGone = 64

// Survey goes through a channel from its head to its first record, newest first, at most most lines (0: all). What is missing,
// does not verify or does not follow is a fault of its line, and the survey goes on behind it; an error means that the place
// could not be read.
func Survey(ctx context.Context, r Reader, st *State, doc *trust.Document, now time.Time, most int) ([]Line, error) {
	if st.Head == nil {
		return nil, nil
	}
	first := Line{Seq: st.Head.Record.Seq, Entry: st.Head}
	var err error
	if first.Faults, err = headFaults(ctx, r, st, doc, now); err != nil {
		return nil, err
	}
	out := []Line{first}
	gone := 0
	for seq := first.Seq - 1; seq >= 1 && (most <= 0 || len(out) < most); seq-- {
		above := out[len(out)-1].Entry
		e, err := Record(ctx, r, st.Head.Record.Channel, seq, doc, now)
		if verify.ReasonOf(err) == verify.PastGeneration || above != nil && opens(above.Record, err) {
			return out, nil // the generation began with the record above
		}
		l := Line{Seq: seq}
		switch {
		case err == nil:
			l.Entry, gone = e, 0
			l.Faults = follow(e, above)
		case errors.Is(err, fs.ErrNotExist):
			if gone++; gone > maxGone {
				out[len(out)-1].Faults = append(out[len(out)-1].Faults, "nor is anything looked for before it")
				return out, nil
			}
			l.Faults = []string{"the record is gone: nothing has the tag " + channel.SeqTag(st.Head.Record.Channel, seq)}
		case diag.CodeOf(err) == diag.Verification:
			l.Faults, gone = []string{err.Error()}, 0
		default:
			return out, err
		}
		out = append(out, l)
	}
	return out, nil
}

// opens tells that r is the first record of a generation whose numbers began anew: nothing stands before it.
func opens(r *channel.Record, before error) bool {
	return errors.Is(before, fs.ErrNotExist) && r.Generation > 1 && len(r.Keep) == 0 && bits.OnesCount64(uint64(r.Seq)) == 1
}

// headFaults compares the tags that lead to the head.
func headFaults(ctx context.Context, r Reader, st *State, doc *trust.Document, now time.Time) ([]string, error) {
	var out []string
	rec := st.Head.Record
	tag, seqTag := channel.Tag(rec.Channel), channel.SeqTag(rec.Channel, rec.Seq)
	switch st.Tag {
	case st.Head.Manifest.Digest:
	case "":
		out = append(out, fmt.Sprintf("the tag %s is gone: devices find no channel; the next record sets it again", tag))
	default:
		out = append(out, fmt.Sprintf("the tag %s is behind this record: a publication was interrupted, or somebody moved the tag back; the next record moves it on", tag))
	}
	d, err := r.Resolve(ctx, seqTag)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return append(out, fmt.Sprintf("nothing has the tag %s: a copy of it is kept by %s only", seqTag, tag)), nil
	case err != nil:
		return nil, err
	case d.Digest == st.Head.Manifest.Digest:
		return out, nil
	}
	other, err := Record(ctx, r, rec.Channel, rec.Seq, doc, now)
	switch {
	case err == nil && other.Bundle == st.Head.Bundle:
		return append(out, fmt.Sprintf("the tag %s leads to the same record in another manifest", seqTag)), nil
	case err == nil:
		return append(out, fmt.Sprintf("the channel was forked at seq %d: %s shows %s (%s %s), %s holds %s (%s %s)", rec.Seq,
			tag, st.Head.Bundle.Short(), rec.Target.Version, rec.Target.Digest.Short(),
			seqTag, other.Bundle.Short(), other.Record.Target.Version, other.Record.Target.Digest.Short())), nil
	case diag.CodeOf(err) == diag.Verification || diag.CodeOf(err) == diag.NotFound:
		return append(out, err.Error()), nil
	}
	return nil, err
}

// follow compares a record with the one above it, nil when nothing there verified.
func follow(e, above *Entry) []string {
	if above == nil {
		return nil
	}
	if above.Record.Prev != e.Bundle {
		return []string{fmt.Sprintf("the channel was forked at seq %d: seq %d follows %s, but seq %d is %s", e.Record.Seq,
			above.Record.Seq, above.Record.Prev.Short(), e.Record.Seq, e.Bundle.Short())}
	}
	if _, err := channel.Follows(&e.Head, &above.Head, above.Role == trust.RoleRefresher); err != nil {
		return []string{fmt.Sprintf("seq %d may not follow it: %v", above.Record.Seq, err)}
	}
	return nil
}

// Faults lists what is wrong, one text for each, with its number.
func Faults(lines []Line) []string {
	var out []string
	for _, l := range lines {
		for _, f := range l.Faults {
			out = append(out, fmt.Sprintf("seq %d: %s", l.Seq, f))
		}
	}
	return out
}

// KeepTag is the tag under which a channel's repository holds a digest that records name, so that a registry's garbage
// collection cannot take a target to go back to.
func KeepTag(d artifact.Digest) string { return "keep-" + d.Hex() }

// Hold tags the target of a record and what it keeps, before devices hear of it. What the repository does not have any more
// is listed: devices that have it can go back to it, others cannot.
func Hold(ctx context.Context, p Place, rec *channel.Record) (missing []channel.Target, err error) {
	for _, t := range append([]channel.Target{rec.Target}, rec.Keep...) {
		tag := KeepTag(t.Digest)
		now, err := p.Resolve(ctx, tag)
		if err == nil && now.Digest == t.Digest {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return missing, err
		}
		raw, d, err := p.Manifest(ctx, t.Digest)
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, t)
			continue
		}
		if err != nil {
			return missing, err
		}
		if _, _, err := p.SwapTag(ctx, raw, d.MediaType, tag, now.Digest); err != nil {
			return missing, fmt.Errorf("tag %s: %w", tag, err)
		}
	}
	return missing, nil
}
