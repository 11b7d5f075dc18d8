// Package keyless signs statements without a key of one's own: a certificate authority (Fulcio) names the holder of an
// OIDC token in a certificate for a key that lives for one signature, a timestamp authority says when it was used and a
// transparency log (Rekor) that it was. Heavy: it links sigstore-go. It has a network path, and contacts the services that
// it is given and the token's endpoint, no other host.
package keyless

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/sign"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
)

const (
	timeout   = time.Minute // for one request
	attempts  = 3
	maxAnswer = 4 << 20
)

// Sign makes the bundle v0.3 of one statement. It checks nothing of what the services answer but its form: the caller
// verifies the bundle against a trusted root before it believes or attaches it. Exit codes: Registry when a service
// failed or refused, with its answer.
func Sign(ctx context.Context, st *evidence.Statement, s Services, t *Token) ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	payload, err := st.Encode()
	if err != nil {
		return nil, err
	}
	key, err := sign.NewEphemeralKeypair(nil) // ECDSA P-256
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	tr := transport(ctx)
	o := sign.BundleOptions{
		Context:                    ctx,
		CertificateProvider:        sign.NewFulcio(&sign.FulcioOptions{BaseURL: strings.TrimSuffix(s.Fulcio, "/"), Timeout: -1, Transport: tr}),
		CertificateProviderOptions: &sign.CertificateProviderOptions{IDToken: t.Raw},
	}
	for _, u := range s.TSA {
		o.TimestampAuthorities = append(o.TimestampAuthorities, sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: u, Timeout: -1, Transport: tr}))
	}
	for _, l := range s.Rekor {
		o.TransparencyLogs = append(o.TransparencyLogs, sign.NewRekor(&sign.RekorOptions{BaseURL: strings.TrimSuffix(l.URL, "/"), Version: l.Version, Timeout: timeout}))
	}
	pb, err := sign.Bundle(&sign.DSSEData{Data: payload, PayloadType: evidence.PayloadType}, key, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, diag.Wrap(diag.Registry, err, "sign without a key (%s)", strings.Join(s.Hosts(), ", ")).
			Line("the token is of %s, subject %s, valid until %s", t.Issuer, t.Subject, t.Expires.Format(time.RFC3339))
	}
	b, err := bundle.NewBundle(pb)
	if err != nil {
		return nil, diag.Wrap(diag.Registry, err, "sign without a key: the services' answers make no bundle")
	}
	raw, err := b.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode bundle: %w", err)
	}
	var out bytes.Buffer // protojson varies its spaces on purpose
	if err := json.Compact(&out, raw); err != nil {
		return nil, fmt.Errorf("encode bundle: %w", err)
	}
	return out.Bytes(), nil
}

// Stamp asks one RFC 3161 authority for a timestamp of a signature and gives its response.
func Stamp(ctx context.Context, authority string, sig []byte) ([]byte, error) {
	raw, err := sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: authority, Timeout: -1, Transport: transport(ctx)}).GetTimestamp(ctx, sig)
	if err != nil {
		return nil, diag.Wrap(diag.Registry, err, "timestamp by %s", authority)
	}
	return raw, nil
}

// transport sends requests under ctx, with a bound on time and size, and again after a failure that may pass. What a
// service refuses for good is the caller's to read; sigstore-go loses the answer of a server error, so that is told here.
func transport(ctx context.Context) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		var body []byte
		if req.Body != nil {
			var err error
			if body, err = io.ReadAll(req.Body); err != nil {
				return nil, err
			}
			req.Body.Close()
		}
		for i := 1; ; i++ {
			resp, err := try(ctx, req, body)
			if err == nil || i == attempts || ctx.Err() != nil || !passing(err) {
				return resp, err
			}
			select {
			case <-time.After(time.Duration(i) * 500 * time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip is f itself.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// refusal is an answer that a server may give otherwise a moment later.
type refusal struct{ status, text string }

func (r refusal) Error() string { return "answered " + r.status + ": " + r.text }

func passing(err error) bool {
	var r refusal
	var n net.Error
	return errors.As(err, &r) || errors.As(err, &n) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF)
}

// try sends one request and reads the whole answer.
func try(ctx context.Context, req *http.Request, body []byte) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out := req.Clone(ctx)
	if req.Body != nil {
		out.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("%s answered with more than %d bytes", req.URL.Host, maxAnswer)
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return nil, refusal{resp.Status, strings.TrimSpace(string(answer[:min(len(answer), 500)]))}
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	return resp, nil
}
