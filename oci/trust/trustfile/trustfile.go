// Package trustfile reads and writes trust.yaml, the form in which people edit a trust document. Devices never read it;
// they read the signed JSON.
package trustfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/trust"
)

var yamlLine = regexp.MustCompile(`line (\d+)`)

// Parse reads trust.yaml strictly (unknown and doubled keys, several documents are errors with their line) and validates
// it. Lists may be left out. file stands in messages only.
func Parse(file string, raw []byte) (*trust.Document, error) {
	fail := func(err error) error {
		e := diag.Wrap(diag.Usage, err, "trust document").At(diag.Loc{File: file})
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			e.Loc.Line, _ = strconv.Atoi(m[1])
		}
		return e.Hint("docs/format.md explains every field")
	}
	if len(raw) > trust.MaxDocument {
		return nil, fail(fmt.Errorf("%d bytes are more than the limit of %d", len(raw), trust.MaxDocument))
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	var d trust.Document
	if err := dec.Decode(&d); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		return nil, fail(err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, fail(errors.New("more than one document in the file"))
	}
	if err := d.Validate(); err != nil {
		return nil, fail(err)
	}
	return &d, nil
}

// Encode writes d as YAML, lists never null.
func Encode(d *trust.Document) ([]byte, error) {
	c := *d
	c.Issued, c.Expires = d.Issued.UTC(), d.Expires.UTC()
	c.Keys = append([]trust.Key{}, d.Keys...)
	for i := range c.Keys {
		s := &c.Keys[i].Scope
		s.Models, s.Envs, s.Channels = list(s.Models), list(s.Envs), list(s.Channels)
		c.Keys[i].ApproverRoles = slices.Clone(c.Keys[i].ApproverRoles)
		if u := c.Keys[i].Until; u != nil {
			utc := u.UTC()
			c.Keys[i].Until = &utc
		}
	}
	c.Identities = slices.Clone(d.Identities)
	for i := range c.Identities {
		s := &c.Identities[i].Scope
		s.Models, s.Envs, s.Channels = list(s.Models), list(s.Envs), list(s.Channels)
	}
	c.Policies, c.Revoked, c.Denied = append([]artifact.Digest{}, d.Policies...), list(d.Revoked), append([]artifact.Digest{}, d.Denied...)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&c); err != nil {
		return nil, fmt.Errorf("encode trust document: %w", err)
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("encode trust document: %w", err)
	}
	return b.Bytes(), nil
}

func list(s []string) []string { return append([]string{}, s...) }
