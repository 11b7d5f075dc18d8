package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// factoryConfig pins the artifact that a device is delivered with.
type factoryConfig struct {
	Source  string            `json:"source"` // directory of an OCI layout
	Digest  artifact.Digest   `json:"digest"`
	Release []artifact.Digest `json:"release"` // bundles of publishers that release it
	Epoch   int64             `json:"epoch,omitempty"`
}

func (f *factoryConfig) check() error {
	if f == nil {
		return nil
	}
	if f.Source == "" {
		return errors.New("source is missing")
	}
	if _, err := artifact.ParseDigest(string(f.Digest)); err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	if len(f.Release) == 0 {
		return errors.New("release is missing: the digests of the bundles that release it")
	}
	for i, d := range f.Release {
		if _, err := artifact.ParseDigest(string(d)); err != nil {
			return fmt.Errorf("release[%d]: %w", i, err)
		}
	}
	if f.Epoch < 0 {
		return errors.New("epoch is negative")
	}
	return nil
}

func (f *factoryConfig) factory() agent.Factory {
	if f == nil {
		return agent.Factory{}
	}
	return agent.Factory{Digest: f.Digest, Releases: f.Release, Epoch: f.Epoch, Source: layoutSource(f.Source)}
}

// layoutSource is the directory of an OCI layout. What it gives is hashed by whoever reads it.
type layoutSource string

// Open implements agent.Source.
func (s layoutSource) Open(_ context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	if _, err := artifact.ParseDigest(string(d.Digest)); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(string(s))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open("blobs/sha256/" + d.Digest.Hex())
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", f.Name())
	}
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
