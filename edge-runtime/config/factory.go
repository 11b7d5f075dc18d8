package config

import (
	"errors"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Factory pins the artifact that a device is delivered with.
type Factory struct {
	Source  string            `json:"source"` // directory of an OCI layout, or an archive that `waybill save` wrote, or a directory with one
	Digest  artifact.Digest   `json:"digest"`
	Release []artifact.Digest `json:"release"` // bundles of publishers that release it
	Epoch   int64             `json:"epoch,omitempty"`
}

func (f *Factory) check() error {
	if f == nil {
		return nil
	}
	if f.Source == "" {
		return errors.New("source is missing")
	}
	if _, err := artifact.ParseDigest(string(f.Digest)); err != nil {
		return diag.Errorf("digest: %w", err)
	}
	if len(f.Release) == 0 {
		return errors.New("release is missing: the digests of the bundles that release it")
	}
	for i, d := range f.Release {
		if _, err := artifact.ParseDigest(string(d)); err != nil {
			return diag.Errorf("release[%d]: %w", i, err)
		}
	}
	if f.Epoch < 0 {
		return errors.New("epoch is negative")
	}
	return nil
}
