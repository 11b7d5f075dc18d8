package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/fleet"
	"github.com/waybill-ml/waybill/policy/facts"
)

// Source is where an artifact, its evidence and the channels live. Nothing that it returns is believed.
type Source interface {
	facts.Source
	// Records returns the bundle of every channel record that is kept, in any order.
	Records(ctx context.Context) ([][]byte, error)
	// Reports returns what devices say of themselves, the newest of each, and how many were not read.
	Reports(ctx context.Context) (bundles [][]byte, unread int, err error)
}

// Repository is the part of a registry, store or layout that is read here.
type Repository interface {
	facts.Repository
	Tags(ctx context.Context) ([]string, error)
}

// maxRecords bounds the channel records that are looked at; the newest tags by name come first.
const maxRecords = 4096

// maxReports bounds the device reports that are read: each is two requests. `waybill channel status` counts whole fleets.
const maxReports = 1024

// FromRepository reads from one repository, which holds the model and its channels.
func FromRepository(r Repository) Source {
	return &repositorySource{RepositorySource: facts.FromRepository(r), r: r}
}

type repositorySource struct {
	*facts.RepositorySource
	r Repository
}

// Records implements Source: layer 0 behind every tag that starts with "channel-", after the name of a repository where a
// whole store is read. Tags that lead elsewhere are skipped.
func (s *repositorySource) Records(ctx context.Context) ([][]byte, error) {
	tags, err := s.r.Tags(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	seen := map[artifact.Digest]bool{}
	var out [][]byte
	for _, t := range tags {
		if !strings.HasPrefix(t[strings.LastIndex(t, ":")+1:], "channel-") {
			continue
		}
		if len(out) >= maxRecords {
			return nil, fmt.Errorf("more than %d channel records", maxRecords)
		}
		b, err := s.RecordAt(ctx, t)
		if code := diag.CodeOf(err); err != nil && (code == diag.Registry || ctx.Err() != nil) {
			return nil, err
		}
		if err != nil || b == nil || seen[artifact.DigestOf(b)] {
			continue
		}
		seen[artifact.DigestOf(b)] = true
		out = append(out, b)
	}
	return out, nil
}

// Reports implements Source: layer 0 behind every tag that starts with "status-".
func (s *repositorySource) Reports(ctx context.Context) (out [][]byte, unread int, err error) {
	tags, err := s.r.Tags(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	for _, t := range tags {
		if !strings.HasPrefix(t[strings.LastIndex(t, ":")+1:], fleet.StatusTagPrefix) {
			continue
		}
		if len(out) >= maxReports {
			unread++
			continue
		}
		b, err := s.ReportAt(ctx, t)
		if err != nil {
			return nil, 0, err
		}
		if b != nil {
			out = append(out, b)
		}
	}
	return out, unread, nil
}
