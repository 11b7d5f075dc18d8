// Package fleet knows the devices of an operator: what a device asks to be enrolled with, the register of those that were,
// what each is given, and what their signed reports say. Light: a device links the first part.
package fleet

import (
	"bytes"
	"maps"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// SchemaRequest is the value of Request.Schema.
const SchemaRequest = "waybill.dev/edge-request/v1"

// MaxRequest bounds a request in bytes.
const MaxRequest = 64 << 10

// requestPurpose keeps the proof apart from every other signature of the device.
const requestPurpose = "request"

// Request is what a device asks the operator with: who it is, what it says of itself, and that it holds the key.
type Request struct {
	Schema string            `json:"schema"`
	Device string            `json:"device"` // hash of the public key
	Public string            `json:"public"` // PEM
	Class  string            `json:"class"`
	Labels map[string]string `json:"labels"`
	// Proof is the device key's signature over the canonical request without it: nobody asks with the key of another, and
	// class and labels are those that the device wrote.
	Proof artifact.Base64 `json:"proof"`
}

// Signer is the device key.
type Signer interface {
	KeyID() string
	Public() ([]byte, error)
	SignRaw(purpose string, data []byte) ([]byte, error)
}

// NewRequest makes and signs a request. When was, the request that the device made before, says the same it is returned
// as it is, so that asking again changes no byte.
func NewRequest(k Signer, class string, labels map[string]string, was *Request) (*Request, error) {
	public, err := k.Public()
	if err != nil {
		return nil, err
	}
	if labels == nil {
		labels = map[string]string{}
	}
	r := &Request{Schema: SchemaRequest, Device: k.KeyID(), Public: string(public), Class: class, Labels: labels}
	if was != nil && was.Device == r.Device && was.Public == r.Public && was.Class == class && maps.Equal(was.Labels, labels) && was.check() == nil {
		return was, nil
	}
	m, err := r.message()
	if err != nil {
		return nil, err
	}
	if r.Proof, err = k.SignRaw(requestPurpose, m); err != nil {
		return nil, err
	}
	return r, r.check()
}

func (r Request) message() ([]byte, error) {
	r.Proof = nil
	return artifact.Canonical(r)
}

// ParseRequest reads a request and checks everything that it says about itself: the id is the hash of the key, and the
// key signed it.
func ParseRequest(raw []byte) (*Request, error) {
	if len(raw) > MaxRequest {
		return nil, diag.Errorf("the request has %d bytes, the limit is %d", len(raw), MaxRequest)
	}
	var r Request
	if err := strictjson.Decode(bytes.TrimSpace(raw), &r); err != nil {
		return nil, diag.Errorf("the request is damaged: %w", err)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return &r, nil
}

func (r *Request) check() error {
	if r.Schema != SchemaRequest {
		return diag.Errorf("schema is %q, this version reads %q", r.Schema, SchemaRequest)
	}
	_, id, err := trust.ParsePublic([]byte(r.Public))
	if err != nil {
		return diag.Errorf("public key: %w", err)
	}
	if id != r.Device {
		return diag.Errorf("the id %.12q is not that of the public key, %s", r.Device, id[:12])
	}
	if err := CheckClass(r.Class); err != nil {
		return err
	}
	if err := CheckLabels(r.Labels); err != nil {
		return err
	}
	m, err := r.message()
	if err != nil {
		return err
	}
	if err := devicekey.VerifyRaw([]byte(r.Public), requestPurpose, m, r.Proof); err != nil {
		return diag.Errorf("proof: %w", err)
	}
	return nil
}

// Bounds of class and labels; status/v1 has the number of labels.
const maxText = 256

// CheckClass tells whether s can name a class of devices.
func CheckClass(s string) error { return checkText("class", s) }

// CheckLabels tells whether the labels fit into a status report.
func CheckLabels(ls map[string]string) error {
	if len(ls) > evidence.MaxLabels {
		return diag.Errorf("%d labels, the limit is %d", len(ls), evidence.MaxLabels)
	}
	for k, v := range ls {
		if err := checkText("label name", k); err != nil {
			return err
		}
		if err := checkText("label "+k, v); err != nil {
			return err
		}
	}
	return nil
}
