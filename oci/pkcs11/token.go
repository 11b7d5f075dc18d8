//go:build pkcs11key && cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Of PKCS #11 v3.0; the binding has v2.40's names.
const (
	ckkEdwards = 0x40
	ckmEdDSA   = 0x1057
)

// Token signs with one key on a token. Each use opens a session of its own and logs in; nothing stays logged in between.
type Token struct {
	mu     sync.Mutex // vendors' libraries differ in what they allow at once
	module *pkcs11.Ctx
	slot   uint
	uri    *URI
	pin    string // empty: the token wants none
	public crypto.PublicKey
}

// Open finds the key that the URI names and reads its public half. The library of the token's vendor is not interrupted
// when ctx ends, only not waited for.
func Open(ctx context.Context, uri string, sec Secrets) (*Token, error) {
	u, err := Parse(uri)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "%s", Redact(uri))
	}
	path, err := u.modulePath(sec.Getenv)
	if err != nil {
		return nil, err
	}
	t := &Token{uri: u, module: pkcs11.New(path)}
	if t.module == nil {
		return nil, diag.New(diag.Usage, "%s is not a PKCS #11 library", path)
	}
	if err := t.module.Initialize(); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		return nil, diag.Wrap(diag.Failure, err, "start %s", path)
	}
	if err := t.choose(sec); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		done <- t.session(func(s pkcs11.SessionHandle) error {
			key, err := t.find(s, pkcs11.CKO_PRIVATE_KEY)
			if err != nil {
				return err
			}
			t.public, err = t.readPublic(s, key)
			return err
		})
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// choose finds the one token that the URI names, and its PIN.
func (t *Token) choose(sec Secrets) error {
	slots, err := t.module.GetSlotList(true)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "list the tokens")
	}
	var hits []uint
	var seen []string
	var flags uint
	for _, slot := range slots {
		in, err := t.module.GetTokenInfo(slot)
		if err != nil {
			continue // an empty or broken reader beside the one that is wanted
		}
		label, serial := strings.TrimRight(in.Label, " \x00"), strings.TrimRight(in.SerialNumber, " \x00")
		if label != "" {
			seen = append(seen, label)
		}
		if (t.uri.token == "" || t.uri.token == label) && (t.uri.serial == "" || t.uri.serial == serial) && (t.uri.slot == nil || *t.uri.slot == slot) {
			hits, flags = append(hits, slot), in.Flags
		}
	}
	switch {
	case len(hits) == 0:
		return diag.New(diag.NotFound, "the token is not there").Line("tokens found: %s", strings.Join(seen, ", ")).Hint("pkcs11-tool --module %s --list-token-slots", t.uri.module)
	case len(hits) > 1:
		return diag.New(diag.Usage, "%d tokens fit", len(hits)).Hint("add serial= or slot-id= to the URI")
	case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return diag.New(diag.Failure, "the PIN of the token is locked").Hint("unlock it with the tool of its vendor")
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return diag.New(diag.Failure, "one more wrong PIN locks the token, so none is tried here").Hint("log in once with the tool of its vendor")
	}
	t.slot = hits[0]
	if flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	t.pin, err = t.uri.readPIN(sec)
	return err
}

// session runs f logged in. A PIN is given once: tokens count the wrong ones, and lock.
func (t *Token) session(f func(pkcs11.SessionHandle) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.module.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		if errors.Is(err, pkcs11.Error(pkcs11.CKR_TOKEN_NOT_PRESENT)) || errors.Is(err, pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED)) || errors.Is(err, pkcs11.Error(pkcs11.CKR_SLOT_ID_INVALID)) {
			return diag.Wrap(diag.NotFound, err, "the token is not there any more")
		}
		return diag.Wrap(diag.Failure, err, "open a session with the token")
	}
	defer func() { _ = t.module.CloseSession(s) }() // nothing was written; what failed has been told
	if t.pin != "" {
		switch err := t.module.Login(s, pkcs11.CKU_USER, t.pin); {
		case err == nil:
			defer func() { _ = t.module.Logout(s) }()
		case errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)):
		case errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)), errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_LEN_RANGE)), errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INVALID)):
			return diag.Wrap(diag.Failure, errors.New("wrong PIN"), "log in to the token").Line("it was tried once only: tokens lock after a few wrong ones").
				Hint("set WAYBILL_PKCS11_PIN to the right one")
		case errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_LOCKED)):
			return diag.New(diag.Failure, "the PIN of the token is locked").Hint("unlock it with the tool of its vendor")
		default:
			return diag.Wrap(diag.Failure, err, "log in to the token")
		}
	}
	return f(s)
}

// find gives the one object of a class that the URI names.
func (t *Token) find(s pkcs11.SessionHandle, class uint) (pkcs11.ObjectHandle, error) {
	tmpl := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if t.uri.object != "" {
		tmpl = append(tmpl, pkcs11.NewAttribute(pkcs11.CKA_LABEL, t.uri.object))
	}
	if len(t.uri.id) > 0 {
		tmpl = append(tmpl, pkcs11.NewAttribute(pkcs11.CKA_ID, t.uri.id))
	}
	hits, err := t.list(s, tmpl)
	switch {
	case err != nil:
		return 0, err
	case len(hits) == 0:
		return 0, diag.New(diag.NotFound, "the token has no private key of that name").Hint("pkcs11-tool --module %s --login --list-objects", t.uri.module)
	case len(hits) > 1:
		return 0, diag.New(diag.Usage, "%d keys of the token fit", len(hits)).Line("which of them signs must not be a matter of chance").Hint("add id=%%01 (the key's id) to the URI")
	}
	return hits[0], nil
}

func (t *Token) list(s pkcs11.SessionHandle, tmpl []*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := t.module.FindObjectsInit(s, tmpl); err != nil {
		return nil, diag.Wrap(diag.Failure, err, "look for the key")
	}
	hits, _, err := t.module.FindObjects(s, 8)
	if ferr := t.module.FindObjectsFinal(s); err == nil {
		err = ferr
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "look for the key")
	}
	return hits, nil
}

// readPublic reads the public half of a private key: the public key object with the same id.
func (t *Token) readPublic(s pkcs11.SessionHandle, private pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	attrs, err := t.module.GetAttributeValue(s, private, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, nil), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, nil),
	})
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read the key's id and type")
	}
	id, kind := attrs[0].Value, number(attrs[1].Value)
	if kind != pkcs11.CKK_EC && kind != ckkEdwards {
		return nil, diag.New(diag.Usage, "the key on the token is neither ECDSA P-256 nor Ed25519 (type %#x); RSA is not used for signing here", kind)
	}
	hits, err := t.list(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_ID, id)})
	if err != nil {
		return nil, err
	}
	if len(hits) != 1 {
		return nil, diag.New(diag.Usage, "the token has %d public keys with the id %x of the private one, not 1", len(hits), id).
			Line("the public key must lie on the token beside the private one, under the same id")
	}
	attrs, err = t.module.GetAttributeValue(s, hits[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil)})
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read the public key")
	}
	pub, err := decodePoint(kind, attrs[0].Value, attrs[1].Value)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "public key on the token")
	}
	return pub, nil
}

// number reads a CK_ULONG, in the byte order of the machine; kinds are small, so that the one byte that is set tells it.
func number(b []byte) uint {
	var n uint
	for _, c := range b {
		n |= uint(c)
	}
	return n
}

func decodePoint(kind uint, point, params []byte) (crypto.PublicKey, error) {
	var raw []byte
	if rest, err := asn1.Unmarshal(point, &raw); err != nil || len(rest) > 0 {
		raw = point // some libraries leave the OCTET STRING around it out
	}
	if kind == ckkEdwards {
		if len(raw) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an Edwards key of %d bytes; only Ed25519 is accepted", len(raw))
		}
		return ed25519.PublicKey(raw), nil
	}
	var oid asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(params, &oid); err != nil {
		return nil, fmt.Errorf("curve: %w", err)
	}
	if !oid.Equal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}) {
		return nil, fmt.Errorf("curve %s; only P-256 is accepted", oid)
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
}

// Public is the public half of the key, ECDSA P-256 or Ed25519, as it was when the key was opened.
func (t *Token) Public() crypto.PublicKey { return t.public }

// Sign signs with the key that the URI names at this moment; the caller compares the result with the public key. ECDSA
// signatures are ASN.1 over the SHA-256 of msg.
func (t *Token) Sign(msg []byte) ([]byte, error) {
	mechanism, input := uint(ckmEdDSA), msg
	if _, ok := t.public.(*ecdsa.PublicKey); ok {
		h := sha256.Sum256(msg)
		mechanism, input = pkcs11.CKM_ECDSA, h[:]
	}
	var sig []byte
	err := t.session(func(s pkcs11.SessionHandle) error {
		key, err := t.find(s, pkcs11.CKO_PRIVATE_KEY)
		if err != nil {
			return err
		}
		if err := t.module.SignInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, key); err != nil {
			return fmt.Errorf("the token does not sign with this key: %w", err)
		}
		sig, err = t.module.Sign(s, input)
		return err
	})
	if err != nil || mechanism == ckmEdDSA {
		return sig, err
	}
	if len(sig) != 64 {
		return nil, fmt.Errorf("an ECDSA signature of %d bytes, not 64", len(sig))
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
}

// modulePath is the vendor's library: module-path, else what cosign's variable says.
func (u *URI) modulePath(getenv func(string) string) (string, error) {
	p := u.module
	if p == "" {
		p = getenv("COSIGN_PKCS11_MODULE_PATH")
	}
	if !filepath.IsAbs(p) {
		return "", diag.New(diag.Usage, "no library of the token's vendor: module-path=/PATH.so in the URI, or COSIGN_PKCS11_MODULE_PATH").
			Hint("waybill keys show 'pkcs11:token=T;object=K?module-path=/usr/lib/softhsm/libsofthsm2.so'")
	}
	if st, err := os.Stat(p); err != nil || !st.Mode().IsRegular() {
		return "", diag.New(diag.NotFound, "the token's library %s is not there", p)
	}
	return p, nil
}

// readPIN finds the PIN: the URI's, else its file's, else WAYBILL_PKCS11_PIN, else COSIGN_PKCS11_PIN, else ask.
func (u *URI) readPIN(sec Secrets) (string, error) {
	if u.PIN != "" {
		return u.PIN, nil
	}
	if u.pinSource != "" {
		b, err := os.ReadFile(u.pinSource)
		if err != nil {
			return "", diag.Wrap(diag.Usage, err, "pin-source")
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	for _, name := range []string{"WAYBILL_PKCS11_PIN", "COSIGN_PKCS11_PIN"} {
		if p := sec.Getenv(name); p != "" {
			return p, nil
		}
	}
	if sec.Ask == nil {
		return "", diag.New(diag.Usage, "no PIN for the token: neither WAYBILL_PKCS11_PIN nor COSIGN_PKCS11_PIN is set, and there is no terminal to ask on").
			Hint("set WAYBILL_PKCS11_PIN in the environment, or pin-source=file:/PATH in the URI")
	}
	b, err := sec.Ask("PIN of the token: ")
	return string(b), err
}
