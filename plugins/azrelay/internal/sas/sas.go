// Package sas signs and reads the shared access signatures of Azure Relay. It
// knows nothing of rights and audiences.
//
//	SharedAccessSignature sr=<uri>&sig=<signature>&se=<unix seconds>&skn=<key name>
//
// The signature covers sr, as written in the token, and se. Its key is the bytes of the
// key's text, which is not decoded.
package sas

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// scheme is what a token begins with.
const scheme = "SharedAccessSignature"

// maxToken bounds the length of a token that is read, in bytes.
const maxToken = 8 << 10

// Sign returns a token for resource, a URI without escapes of its own, that is
// valid until expires, rounded down to the second.
func Sign(resource, keyName, key string, expires time.Time) string {
	sr, se := escape(resource), strconv.FormatInt(expires.Unix(), 10)
	sig := base64.StdEncoding.EncodeToString(mac(sr, se, key))
	return scheme + " sr=" + sr + "&sig=" + escape(sig) + "&se=" + se + "&skn=" + escape(keyName)
}

// Token is a token that was read. Nothing of it has been verified.
type Token struct {
	// Resource is the URI, unescaped.
	Resource string
	KeyName  string
	Expires  time.Time

	sr, se string // as they stand
	sig    []byte
}

// Parse reads a token. Its fields may come in any order and its escapes in
// either case. An error holds nothing of the token.
func Parse(s string) (*Token, error) {
	if len(s) > maxToken {
		return nil, fmt.Errorf("a token of %d bytes is too long", len(s))
	}
	name, fields, ok := strings.Cut(strings.TrimSpace(s), " ")
	if !ok || !strings.EqualFold(name, scheme) {
		return nil, errors.New(`a token begins with "SharedAccessSignature "`)
	}
	values := make(map[string]string)
	for field := range strings.SplitSeq(fields, "&") {
		k, v, ok := strings.Cut(field, "=")
		if !ok {
			return nil, errors.New("a field of the token has no value")
		}
		if _, ok := values[k]; ok {
			return nil, errors.New("a field of the token appears twice")
		}
		values[k] = v
	}
	for _, k := range []string{"sr", "sig", "se", "skn"} {
		if values[k] == "" {
			return nil, fmt.Errorf("the token has no %s", k)
		}
	}
	t := &Token{sr: values["sr"], se: values["se"]}
	seconds, err := strconv.ParseInt(t.se, 10, 64)
	if err != nil || seconds < 0 {
		return nil, errors.New("the token's se is not a time in seconds")
	}
	t.Expires = time.Unix(seconds, 0)
	if t.Resource, err = url.PathUnescape(t.sr); err != nil {
		return nil, errors.New("the token's sr is not escaped correctly")
	}
	if t.KeyName, err = url.PathUnescape(values["skn"]); err != nil {
		return nil, errors.New("the token's skn is not escaped correctly")
	}
	sig, err := url.PathUnescape(values["sig"])
	if err != nil {
		return nil, errors.New("the token's sig is not escaped correctly")
	}
	if t.sig, err = base64.StdEncoding.DecodeString(sig); err != nil {
		return nil, errors.New("the token's sig is not base64")
	}
	return t, nil
}

// signatureRE is a token's signature, however often it was escaped. All that
// follows goes with it, up to the next field as it stands in a token.
var signatureRE = regexp.MustCompile(`(?i)(sig(?:=|%(?:25)*3d))[^\s&]+`)

// Redact takes the signatures of tokens out of a text: what is left of a token
// opens nothing.
func Redact(text string) string { return signatureRE.ReplaceAllString(text, "${1}[redacted]") }

// Verify says whether key signed the token.
func (t *Token) Verify(key string) bool { return hmac.Equal(t.sig, mac(t.sr, t.se, key)) }

func mac(sr, se, key string) []byte {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte(sr + "\n" + se))
	return h.Sum(nil)
}

// escape is percent-encoding of everything that is not unreserved (RFC 3986,
// 2.3), spaces included.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
