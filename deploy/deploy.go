// Package deploy is the noun of a place outside the edge where an artifact runs: what shall run there (Release), what does
// run there (Status), the difference (Plan), and the two moves, Apply and Rollback. One folder below per platform implements
// Target; targettest is the suite that each of them passes; no target knows of another, of environments or of evidence.
//
// A target keeps no state of its own: everything it knows is read from the platform, where each revision is labelled with the digest
// of the artifact that it runs. So a run that died, or whose answer was lost, is taken up by the next one, from any machine.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Target is one place: a function behind an alias, a service with revisions, an endpoint. Implementations are safe for concurrent use
// and hold no lock between calls: two deploys at once are told apart by Plan.Revision. Errors wrap one of the sentinels below
// where the cause is one of them, with the platform's own code and request id in their text, and never hold a credential. Answers
// that ask to slow down (ErrThrottled) and those of a platform that stumbles (ErrUnavailable) are asked for again, a bounded number of
// times, before they become errors; an error of ctx is wrapped as it is.
type Target interface {
	// Status reads what runs. A target that was never deployed to is not an error: it gives a Status without shares.
	Status(ctx context.Context) (*Status, error)
	// Plan reads what runs and tells what Apply would change; it changes nothing. A plan without Changes is the state wanted.
	// A release that Check refuses is refused.
	Plan(ctx context.Context, r Release) (*Plan, error)
	// Apply makes the changes of p, which this target planned. It is refused with ErrConflict when the platform's revision is no
	// longer Plan.Revision. The old revision serves until the new one is healthy; when that does not come about within
	// Release.Wait, or a step in between fails, traffic stays with the old one, and the error says what was left behind.
	// Making a plan of the same release and applying it again, after an answer that was lost too, ends in the same state. A plan
	// without Changes calls nothing and gives an Outcome that is not Changed.
	Apply(ctx context.Context, p *Plan) (*Outcome, error)
	// Rollback gives all traffic to a revision that the platform still has: the one of digest to, or, for the empty digest, the
	// one that served before; while a canary runs, that is the one beside it. ErrGone when the platform no longer has it, ErrNotFound when it never had (a platform that forgets
	// what it deleted cannot tell, and gives either). To roll back to what has all the traffic changes nothing and is no error.
	Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*Outcome, error)
}

// Promoter is a Target that can give a part of the traffic to a new revision. Weight is 1 to 99 in a Release; Promote gives the
// revision of the running canary everything.
type Promoter interface {
	Promote(ctx context.Context, wait time.Duration) (*Outcome, error)
}

// Release is what shall run. The image or bundle was built from the artifact, reproducibly: the same artifact has the same image.
type Release struct {
	Digest artifact.Digest   // of the artifact's manifest: what the verdict is about
	Model  string            // name and version, for people
	Ver    string            //
	Image  string            // repository@sha256:..., for targets that run images; never a tag
	Bundle string            // folder of files, for targets that upload code
	Arches []string          // of the image or bundle, as GOARCH names them, wasm among them; empty: not known, the platform decides
	Size   int64             // of the image or bundle in bytes; 0: not known
	Weight int               // percent of the traffic; 0 or 100: all of it, as where nothing ran before. ErrRelease without a Promoter
	Wait   time.Duration     // for the new revision to be healthy; 0: the target's default
	Labels map[string]string // further ones, where the platform has labels
}

// Status is what runs, as the platform says.
type Status struct {
	Exists   bool
	Revision string  // the platform's own token of the state read: revision id, etag, resourceVersion
	Shares   []Share // that get traffic, largest first; weights sum to 100
	Kept     []Share // that could be rolled back to, newest first; weight 0
	State    string  // the platform's word: Active, InService, Ready, Updating, Failed ...
	Settled  bool    // no change is under way
	Healthy  bool    //
	Reason   string  // why not, in the platform's words
	URL      string  // where it answers, when there is one
}

// Running is the digest with the largest share; empty when nothing runs, or what runs was not put there by Waybill.
func (s *Status) Running() artifact.Digest {
	if s == nil || len(s.Shares) == 0 {
		return ""
	}
	return s.Shares[0].Digest
}

// Canary is the share that is tried beside the other one, of any weight; nil: none runs.
func (s *Status) Canary() *Share {
	for i := range s.Shares {
		if s.Shares[i].Canary {
			return &s.Shares[i]
		}
	}
	return nil
}

// Share is a revision and its part of the traffic.
type Share struct {
	Digest artifact.Digest   // of the artifact, by the label; empty: not put there by Waybill
	Image  string            // that the platform resolved, by digest, where it tells
	ID     string            // the platform's name of the revision
	Weight int               // percent
	Canary bool              // it is tried beside the other one: what Promote would give all of the traffic
	Since  time.Time         // of its creation; zero where the platform does not tell
	Labels map[string]string //
}

// Plan is what Apply would do. It is made by a Target and understood by that Target only.
type Plan struct {
	Release  Release
	From     artifact.Digest // that runs now; empty: nothing
	Revision string          // state of the platform that the plan was made of; Apply demands it
	Changes  []Change        // none: nothing to do
	Drift    []Change        // what somebody changed on the platform since, and Apply sets right
	Create   bool            // the place does not exist yet
	State    any             // the target's own
}

// Change is one field before and after, in the platform's words.
type Change struct {
	Field    string // traffic, image, memory ...
	Old, New string // empty: absent
	Why      string //
}

// Outcome is what a move did; it becomes a deployment/v1 statement.
type Outcome struct {
	Digest   artifact.Digest // that has the traffic now
	Previous artifact.Digest // that had it before
	Image    string          // that the platform resolved, by digest
	IDs      map[string]string
	Changed  bool // false: it was so already
	Weight   int  // percent that Digest has
	URL      string
}

// Check refuses a release that no target takes: without the artifact's digest, with an image that is not named by digest, with a
// weight that is none. needImage and needBundle say what the target runs.
func (r Release) Check(needImage, needBundle bool) error {
	if _, err := artifact.ParseDigest(string(r.Digest)); err != nil {
		return fmt.Errorf("%w: the artifact: %w", ErrRelease, err)
	}
	switch {
	case needImage && r.Image == "":
		return fmt.Errorf("%w: it has no image", ErrRelease)
	case needBundle && r.Bundle == "":
		return fmt.Errorf("%w: it has no bundle", ErrRelease)
	case r.Weight < 0 || r.Weight > 100:
		return fmt.Errorf("%w: a weight of %d%%", ErrRelease, r.Weight)
	case r.Wait < 0:
		return fmt.Errorf("%w: a wait of %s", ErrRelease, r.Wait)
	}
	if r.Image != "" {
		if _, _, err := SplitImage(r.Image); err != nil {
			return err
		}
	}
	return nil
}

// SplitImage takes repository@sha256:... apart. A tag, alone or beside the digest, is ErrRelease: what it names can change between
// the plan and the start of the tenth instance.
func SplitImage(image string) (repository string, d artifact.Digest, err error) {
	repository, rest, ok := strings.Cut(image, "@")
	if !ok {
		return "", "", fmt.Errorf("%w: image %s is not named by digest", ErrRelease, image)
	}
	if d, err = artifact.ParseDigest(rest); err != nil {
		return "", "", fmt.Errorf("%w: image %s: %w", ErrRelease, image, err)
	}
	last := repository[strings.LastIndexByte(repository, '/')+1:]
	if repository == "" || last == "" || strings.ContainsAny(repository, " \t\r\n") {
		return "", "", fmt.Errorf("%w: image %q names no repository", ErrRelease, image)
	}
	if strings.Contains(last, ":") {
		return "", "", fmt.Errorf("%w: image %s has a tag beside its digest", ErrRelease, image)
	}
	return repository, d, nil
}

// Causes that all platforms share.
var (
	ErrRelease      = errors.New("the release cannot be deployed")
	ErrConflict     = errors.New("somebody else changed the target in between")
	ErrUnhealthy    = errors.New("the new revision did not become healthy")
	ErrUnauthorized = errors.New("the credentials are missing, expired or refused")
	ErrForbidden    = errors.New("the credentials lack a permission")
	ErrQuota        = errors.New("a quota or limit of the platform is reached")
	ErrTooLarge     = errors.New("the image or bundle is larger than the platform takes")
	ErrPlatform     = errors.New("the platform does not run this architecture")
	ErrGone         = errors.New("the platform no longer has the revision")
	ErrNotFound     = errors.New("no revision of this digest was ever there")
	ErrThrottled    = errors.New("the platform asks to slow down")
	ErrUnavailable  = errors.New("the platform did not answer")
	ErrBusy         = errors.New("another change is under way")
)
