// Package awstest is what local servers of AWS's services have in common in tests: each request's signature computed anew, and bodies
// held against the SDK's types and the service's published Smithy model.
package awstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Credentials of the one caller that a server knows, and the service and region that it is.
type Credentials struct{ ID, Secret, Token, Region, Service string }

// Known are credentials of the form that AWS gives out for a session.
func Known(service string) Credentials {
	return Credentials{"AKIDTESTTESTTESTTEST", "secret/wJalrXUtnFEMI+K7MDENG", "token+FwoGZXIvYXdzEXAMPLE/session", "eu-central-1", service}
}

// Verify computes the request's signature (AWS Signature Version 4) anew, from the specification and not with the SDK's signer. The result is the
// error that AWS gives, empty for a good one.
func (c Credentials) Verify(r *http.Request, body []byte, now time.Time) (code, message string) {
	auth := r.Header.Get("Authorization")
	if auth == "" {
		return "MissingAuthenticationTokenException", "Missing Authentication Token"
	}
	rest, ok := strings.CutPrefix(auth, "AWS4-HMAC-SHA256 ")
	part := map[string]string{}
	for _, p := range strings.Split(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		part[k] = v
	}
	scope := strings.Split(part["Credential"], "/")
	if !ok || len(scope) != 5 || part["SignedHeaders"] == "" || part["Signature"] == "" {
		return "IncompleteSignatureException", "Authorization header is incomplete"
	}
	if scope[0] != c.ID || r.Header.Get("X-Amz-Security-Token") != c.Token {
		return "UnrecognizedClientException", "The security token included in the request is invalid."
	}
	stamp := r.Header.Get("X-Amz-Date")
	at, err := time.Parse("20060102T150405Z", stamp)
	if err != nil || now.Sub(at).Abs() > 15*time.Minute {
		return "InvalidSignatureException", "Signature expired: " + stamp
	}
	if scope[1] != stamp[:8] || scope[2] != c.Region || scope[3] != c.Service || scope[4] != "aws4_request" {
		return "InvalidSignatureException", "Credential should be scoped to a valid region and service"
	}
	signed := strings.Split(part["SignedHeaders"], ";")
	if !slices.Contains(signed, "host") || !slices.Contains(signed, "x-amz-date") || c.Token != "" && !slices.Contains(signed, "x-amz-security-token") || !slices.IsSorted(signed) {
		return "InvalidSignatureException", "headers that must be signed are not"
	}
	var canonical strings.Builder
	// The path is escaped once more than it travels; the query is sorted.
	fmt.Fprintf(&canonical, "%s\n%s\n%s\n", r.Method, strings.ReplaceAll(escape(r.URL.EscapedPath()), "%2F", "/"), query(r.URL.Query()))
	for _, h := range signed {
		v := strings.Join(r.Header.Values(h), ",")
		if h == "host" {
			v = r.Host
		} else if h == "content-length" {
			v = fmt.Sprint(r.ContentLength)
		}
		fmt.Fprintf(&canonical, "%s:%s\n", h, strings.Join(strings.Fields(v), " "))
	}
	sum := sha256.Sum256(body)
	fmt.Fprintf(&canonical, "\n%s\n%s", part["SignedHeaders"], hex.EncodeToString(sum[:]))
	hashed := sha256.Sum256([]byte(canonical.String()))
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", stamp, strings.Join(scope[1:], "/"), hex.EncodeToString(hashed[:])}, "\n")
	key := []byte("AWS4" + c.Secret)
	for _, s := range scope[1:] {
		key = mac(key, s)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(mac(key, toSign))), []byte(part["Signature"])) {
		return "InvalidSignatureException", "The request signature we calculated does not match the signature you provided."
	}
	return "", ""
}

func mac(key []byte, s string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(s))
	return m.Sum(nil)
}

// escape is RFC 3986 of everything but the unreserved.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func query(q url.Values) string {
	var out []string
	for k, vs := range q {
		for _, v := range vs {
			out = append(out, escape(k)+"="+escape(v))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "&")
}
