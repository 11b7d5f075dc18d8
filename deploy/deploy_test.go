package deploy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

func TestCheck(t *testing.T) {
	d := artifact.DigestOf([]byte("model"))
	at := "@" + string(d)
	good := Release{Digest: d, Image: "reg.example:5000/ml/churn" + at}
	for name, c := range map[string]struct {
		edit          func(*Release)
		image, bundle bool
		says          string // empty: it is fine
	}{
		"fine":                {func(*Release) {}, true, false, ""},
		"all weights":         {func(r *Release) { r.Weight = 100 }, true, false, ""},
		"a bundle":            {func(r *Release) { r.Image, r.Bundle = "", "dir" }, false, true, ""},
		"no artifact":         {func(r *Release) { r.Digest = "" }, true, false, "the artifact"},
		"no image":            {func(r *Release) { r.Image = "" }, true, false, "no image"},
		"no bundle":           {func(*Release) {}, false, true, "no bundle"},
		"a tag":               {func(r *Release) { r.Image = "reg.example/ml/churn:1.0" }, true, false, "not named by digest"},
		"neither":             {func(r *Release) { r.Image = "reg.example/ml/churn" }, true, false, "not named by digest"},
		"tag and digest":      {func(r *Release) { r.Image = "reg.example/ml/churn:1.0" + at }, true, false, "a tag beside"},
		"digest of less":      {func(r *Release) { r.Image = "reg.example/ml/churn@sha256:abc" }, true, false, "not a sha256 digest"},
		"digest in capitals":  {func(r *Release) { r.Image = "reg.example/ml/churn@" + strings.ToUpper(string(d)) }, true, false, "not a sha256 digest"},
		"two digests":         {func(r *Release) { r.Image = "reg.example/ml/churn" + at + at }, true, false, "not a sha256 digest"},
		"no repository":       {func(r *Release) { r.Image = at }, true, false, "no repository"},
		"slash at the end":    {func(r *Release) { r.Image = "reg.example/" + at }, true, false, "no repository"},
		"space":               {func(r *Release) { r.Image = "reg.example/a b" + at }, true, false, "no repository"},
		"a tag beside bundle": {func(r *Release) { r.Bundle, r.Image = "dir", "reg.example/ml/churn:1.0" }, false, true, "not named by digest"},
		"weight":              {func(r *Release) { r.Weight = 101 }, true, false, "101%"},
		"negative weight":     {func(r *Release) { r.Weight = -1 }, true, false, "-1%"},
		"negative wait":       {func(r *Release) { r.Wait = -time.Second }, true, false, "-1s"},
	} {
		r := good
		c.edit(&r)
		err := r.Check(c.image, c.bundle)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, ErrRelease) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want one that says %q", name, err, c.says)
		}
	}
	if repo, got, err := SplitImage(good.Image); err != nil || repo != "reg.example:5000/ml/churn" || got != d {
		t.Errorf("SplitImage: %s %s %v", repo, got, err)
	}
}

func TestRunning(t *testing.T) {
	var none *Status
	if none.Running() != "" || (&Status{}).Running() != "" {
		t.Error("nothing runs, and Running says something")
	}
	if got := (&Status{Shares: []Share{{Digest: "a", Weight: 90}, {Digest: "b", Weight: 10}}}).Running(); got != "a" {
		t.Errorf("Running is %s", got)
	}
}
