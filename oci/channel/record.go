package channel

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// Limits on a record.
const (
	MaxEvidence = 32
	MaxKeep     = 16
	MaxClasses  = 64
	MaxLabels   = 32
	// MaxJump bounds how far seq may run ahead of what a device has seen, so that one signed record with a huge seq
	// can't lock a channel for ever (TUF's fast-forward attack).
	MaxJump = 1 << 20
	maxSeq  = 1 << 53
)

// Buckets is the number of rollout buckets; a percentage has two decimals.
const Buckets = 10000

var nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// ValidName checks a channel name. A dot is refused, since "channel-prod.5" is seq 5 of prod.
func ValidName(name string) error {
	if !nameRE.MatchString(name) {
		return diag.Errorf("channel name %q does not match %s", name, nameRE)
	}
	return nil
}

// Tag is the moving tag of a channel, SeqTag the fixed one of a record.
func Tag(name string) string { return "channel-" + name }

// SeqTag is the tag that record seq of a channel keeps for ever.
func SeqTag(name string, seq int64) string { return fmt.Sprintf("channel-%s.%d", name, seq) }

// SubjectName is the name of the statement's subject.
func SubjectName(name string) string { return "channel:" + name }

// Parse reads a record from JSON strictly and validates it. It does not look at the clock.
func Parse(raw []byte) (*Record, error) {
	if len(raw) > artifact.MaxRecord {
		return nil, diag.Errorf("channel record of %d bytes is larger than the limit of %d", len(raw), artifact.MaxRecord)
	}
	var r Record
	if err := strictjson.Decode(raw, &r); err != nil {
		return nil, diag.Errorf("parse channel record: %w", err)
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return &r, nil
}

// Validate checks every rule that needs neither a clock nor another record.
func (r *Record) Validate() error {
	fail := func(format string, args ...any) error {
		return diag.Errorf("channel record: "+format, args...)
	}
	if err := ValidName(r.Channel); err != nil {
		return fail("%w", err)
	}
	switch {
	case r.Schema != Schema:
		return fail("schema is %q, not %q", r.Schema, Schema)
	case r.Generation < 1:
		return fail("generation %d is below 1", r.Generation)
	case r.Seq < 1 || r.Seq > maxSeq:
		return fail("seq %d is not between 1 and 2^53", r.Seq)
	case r.Env == "":
		return fail("env is empty")
	case r.Issued.IsZero() || !r.Expires.After(r.Issued):
		return fail("expires is not after issued")
	case len(r.Audience.Classes) > MaxClasses || len(r.Audience.Labels) > MaxLabels:
		return fail("audience has more than %d classes or %d labels", MaxClasses, MaxLabels)
	case len(r.Keep) > MaxKeep:
		return fail("keep has more than %d targets", MaxKeep)
	case len(r.Evidence) > MaxEvidence:
		return fail("evidence has more than %d bundles", MaxEvidence)
	case r.EpochFloor < 0:
		return fail("epoch_floor is negative")
	case r.Trust.Version < 1:
		return fail("trust.version %d is below 1", r.Trust.Version)
	case r.Seq == 1 && r.Prev != "":
		return fail("prev given for seq 1")
	case r.Seq > 1 && r.Prev == "":
		return fail("prev is missing for seq %d", r.Seq)
	}
	if _, err := artifact.ParseDigest(string(r.Trust.Digest)); err != nil {
		return fail("trust.digest: %w", err)
	}
	if r.Prev != "" {
		if _, err := artifact.ParseDigest(string(r.Prev)); err != nil {
			return fail("prev: %w", err)
		}
	}
	if err := r.Target.validate(r.EpochFloor); err != nil {
		return fail("target: %w", err)
	}
	seen := map[artifact.Digest]bool{r.Target.Digest: true}
	for i, t := range r.Keep {
		if err := t.validate(r.EpochFloor); err != nil {
			return fail("keep[%d]: %w", i, err)
		}
		if seen[t.Digest] {
			return fail("keep[%d]: %s is given twice", i, t.Digest.Short())
		}
		seen[t.Digest] = true
	}
	if err := r.validateEvidence(); err != nil {
		return fail("%w", err)
	}
	if b := r.Rollback; b != nil {
		if _, err := artifact.ParseDigest(string(b.From)); err != nil {
			return fail("rollback.from: %w", err)
		}
		if b.From == r.Target.Digest {
			return fail("rollback.from is the target itself")
		}
		if blank(b.Reason) {
			return fail("rollback.reason is empty")
		}
	}
	if err := r.Freeze.validate(); err != nil {
		return fail("%w", err)
	}
	if o := r.Rollout; o != nil {
		if o.ID == "" || strings.ContainsRune(o.ID, 0) {
			return fail("rollout.id is empty or holds a NUL")
		}
		if !(o.Percent >= 0 && o.Percent <= 100) {
			return fail("rollout.percent %v is not between 0 and 100", o.Percent)
		}
	}
	return nil
}

func (t Target) validate(floor int64) error {
	if _, err := artifact.ParseDigest(string(t.Digest)); err != nil {
		return err
	}
	switch {
	case t.Name == "" || t.Repo == "" || t.Version == "":
		return errors.New("name, repo or version is empty")
	case t.Size < 1 || t.Size > artifact.MaxManifest:
		return diag.Errorf("size %d is not between 1 and %d", t.Size, artifact.MaxManifest)
	case t.Epoch < 0:
		return errors.New("epoch is negative")
	case t.Epoch < floor:
		return diag.Errorf("epoch %d is below epoch_floor %d", t.Epoch, floor)
	}
	return nil
}

// validateEvidence wants what a device must check, all of it about the target: a release and one verdict.
func (r *Record) validateEvidence() error {
	releases, verdicts := 0, 0
	seen := map[artifact.Digest]bool{}
	for i, e := range r.Evidence {
		if _, err := artifact.ParseDigest(string(e.Digest)); err != nil {
			return diag.Errorf("evidence[%d].digest: %w", i, err)
		}
		switch {
		case e.Subject != r.Target.Digest:
			return diag.Errorf("evidence[%d].subject is not the target", i)
		case e.Size < 1 || e.Size > artifact.MaxBundle:
			return diag.Errorf("evidence[%d].size %d is not between 1 and %d", i, e.Size, artifact.MaxBundle)
		case e.PredicateType == "":
			return diag.Errorf("evidence[%d].predicateType is empty", i)
		case seen[e.Digest]:
			return diag.Errorf("evidence[%d]: %s is given twice", i, e.Digest.Short())
		}
		seen[e.Digest] = true
		switch e.PredicateType {
		case evidence.TypeRelease:
			releases++
		case evidence.TypeVSA:
			verdicts++
		}
	}
	if releases < 1 || verdicts != 1 {
		return diag.Errorf("evidence has %d releases and %d verdicts, not at least 1 and exactly 1", releases, verdicts)
	}
	return nil
}

// Expired tells whether the record no longer allows new activations. What runs already goes on.
func (r *Record) Expired(at time.Time) bool { return !at.Before(r.Expires) }

// Matches tells whether a device with that class and those labels is meant.
func (a Audience) Matches(class string, labels map[string]string) bool {
	if len(a.Classes) > 0 {
		ok := false
		for _, c := range a.Classes {
			ok = ok || c == class
		}
		if !ok {
			return false
		}
	}
	for k, v := range a.Labels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Bucket gives the device's place in a rollout: SHA-256(id NUL device), read as a big-endian number, modulo 10000.
func Bucket(id, device string) int {
	h := sha256.Sum256([]byte(id + "\x00" + device))
	n := 0
	for _, b := range h {
		n = (n*256 + int(b)) % Buckets
	}
	return n
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }

// Reach is how many of the Buckets the phase takes in. A nil rollout reaches all. Percentages are rounded to two decimals:
// 0.28 * 100 is a little more than 28 in binary, and would reach one bucket too many.
func (o *Rollout) Reach() int {
	if o == nil {
		return Buckets
	}
	return int(math.Round(o.Percent * (Buckets / 100)))
}

// Includes tells whether the phase has reached the device. A nil rollout includes every device.
func (o *Rollout) Includes(device string) bool {
	return o == nil || Bucket(o.ID, device) < o.Reach()
}

// Device is what Admit needs to know of a device.
type Device struct {
	ID     string // hash of its public key
	Class  string
	Labels map[string]string
	Floor  int64 // the durable epoch floor
}

// Reasons of Admit and Follows; errors.Is tells them apart.
var (
	ErrExpired     = errors.New("record has expired")
	ErrAudience    = errors.New("record is for other devices")
	ErrRollout     = errors.New("rollout has not reached this device")
	ErrEpoch       = errors.New("target is below the security floor of this device")
	ErrChannel     = errors.New("record is of another channel")
	ErrStale       = errors.New("record is older than the one accepted before")
	ErrFork        = errors.New("the channel was forked: other bytes at the same seq")
	ErrFastForward = errors.New("seq jumps too far ahead")
	ErrRefresher   = errors.New("a refresher may only extend the expiry")
	ErrRollback    = errors.New("rollback does not fit the record before")
)

// Admit tells whether the record allows the device a new activation of its target now. Restarting what runs, or going
// back to a digest committed before, is no activation and does not ask. now is the larger of the clock and the
// device's time floor.
func (r *Record) Admit(now time.Time, d Device) error { return rules{}.admit(r, now, d) }

// rules carries the names of checks that a test leaves out, to see that the attack then succeeds.
type rules struct{ skip string }

func (u rules) on(name string) bool { return u.skip != name }

func (u rules) admit(r *Record, now time.Time, d Device) error {
	switch {
	case u.on("freeze") && r.Freeze != nil:
		return diag.Errorf("%w: %s", ErrFrozen, r.Freeze.Reason)
	case u.on("audience") && !r.Audience.Matches(d.Class, d.Labels):
		return ErrAudience
	case u.on("rollout") && !r.Rollout.Includes(d.ID):
		return diag.Errorf("%w: bucket %d, phase %s at %v %%", ErrRollout, Bucket(r.Rollout.ID, d.ID), r.Rollout.ID, r.Rollout.Percent)
	case u.on("epoch") && r.Target.Epoch < d.Floor:
		return diag.Errorf("%w: epoch %d, floor %d", ErrEpoch, r.Target.Epoch, d.Floor)
	case u.on("expiry") && (now.IsZero() || r.Expired(now)):
		return diag.Errorf("%w: it was valid until %s", ErrExpired, r.Expires.Format(time.RFC3339))
	}
	return nil
}
