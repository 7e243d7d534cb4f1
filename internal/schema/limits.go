package schema

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

const (
	maxPattern = 1024 // bytes of a pattern
	maxLimit   = 64   // bytes of the JSON of a minimum or maximum
)

// whole is the type of a limit on a length.
var whole = &pluginv1.Type{Kind: pluginv1.Kind_KIND_INT}

// limitType is the type of a type's minimum and maximum; nil where it has none. unit
// is what they count, where it is not the value itself.
func limitType(t *pluginv1.Type) (of *pluginv1.Type, unit string) {
	switch t.GetKind() {
	case pluginv1.Kind_KIND_INT, pluginv1.Kind_KIND_FLOAT, pluginv1.Kind_KIND_DURATION, pluginv1.Kind_KIND_SIZE:
		return &pluginv1.Type{Kind: t.GetKind()}, ""
	case pluginv1.Kind_KIND_STRING:
		return whole, "bytes"
	case pluginv1.Kind_KIND_LIST, pluginv1.Kind_KIND_MAP:
		return whole, "elements"
	}
	return nil, ""
}

// bounds reads a type's minimum and maximum; nil is none.
func bounds(t *pluginv1.Type) (least, most any, err error) {
	of, unit := limitType(t)
	read := func(text string) any {
		if text == "" || err != nil {
			return nil
		}
		if of == nil {
			err = fmt.Errorf("a %s has no minimum or maximum", t.GetKind().Text())
			return nil
		}
		var v any
		if v, err = readValue(of, []byte(text)); err == nil && unit != "" && compare(v, int64(0)) < 0 {
			err = errors.New("a length cannot be negative")
		}
		return v
	}
	least, most = read(t.GetMinimumJson()), read(t.GetMaximumJson())
	if err == nil && least != nil && most != nil && compare(least, most) > 0 {
		err = errors.New("the minimum is above the maximum")
	}
	return least, most, err
}

// compare compares two values of one type.
func compare(a, b any) int {
	switch a := a.(type) {
	case int64:
		return cmp.Compare(a, b.(int64))
	case float64:
		return cmp.Compare(a, b.(float64))
	case time.Duration:
		return cmp.Compare(a, b.(time.Duration))
	}
	return 0
}

// isZero says whether a value is the zero of its type.
func isZero(v any) bool { return v == int64(0) || v == float64(0) || v == time.Duration(0) }

// measure is what a type's limits apply to.
func measure(v any) any {
	switch v := v.(type) {
	case string:
		return int64(len(v))
	case []any:
		return int64(len(v))
	case map[string]any:
		return int64(len(v))
	}
	return v
}

// checkLimits says whether what a type asks of its values makes sense.
func checkLimits(t *pluginv1.Type) error {
	if len(t.GetMinimumJson()) > maxLimit || len(t.GetMaximumJson()) > maxLimit {
		return fmt.Errorf("a minimum or maximum of more than %d bytes", maxLimit)
	}
	if _, _, err := bounds(t); err != nil {
		return err
	}
	text := t.GetKind() == pluginv1.Kind_KIND_STRING
	_, unit := limitType(t)
	switch {
	case t.GetOrZero() && (unit != "" || t.GetMinimumJson() == ""):
		return errors.New("zero is allowed only beside a minimum")
	case !text && (len(t.GetOneOf()) > 0 || t.GetPattern() != "" || t.GetOneLine() || t.GetPath() != pluginv1.PathUse_PATH_USE_UNSPECIFIED):
		return fmt.Errorf("limits of strings on type %s", t.GetKind().Text())
	case len(t.GetOneOf()) > maxNames:
		return fmt.Errorf("more than %d texts to choose from", maxNames)
	case len(t.GetPattern()) > maxPattern:
		return fmt.Errorf("a pattern of more than %d bytes", maxPattern)
	}
	for i, one := range t.GetOneOf() {
		if slices.Contains(t.GetOneOf()[:i], one) || len(one) > maxText {
			return errors.New("a text to choose from appears twice, or is too long")
		}
	}
	if _, err := pattern(t); err != nil {
		return fmt.Errorf("pattern %q is not a regular expression", t.GetPattern())
	}
	return nil
}

func pattern(t *pluginv1.Type) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(t.GetPattern()); err != nil { // on its own: a ")(" must not reach out of the group
		return nil, err
	}
	return regexp.Compile(`\A(?:` + t.GetPattern() + `)\z`)
}

// limits are those that a type puts on its values, read once for any number of
// them. A limit that cannot be read is ignored: Check reports it.
type limits struct {
	of          *pluginv1.Type
	least, most any
	pattern     *regexp.Regexp
}

func newLimits(t *pluginv1.Type) *limits {
	l := &limits{of: t}
	if least, most, err := bounds(t); err == nil {
		l.least, l.most = least, most
	}
	if t.GetPattern() != "" {
		l.pattern, _ = pattern(t)
	}
	return l
}

// exceeded says what is wrong with a value of the type; secret says that not even what
// resembles it may be named. Both texts are empty where nothing is; the summary alone,
// where it is the usual one.
func (l *limits) exceeded(v any, secret bool) (summary, detail string) {
	if text, ok := v.(string); ok {
		if detail = l.wrongText(text, secret); detail != "" {
			return "", detail
		}
	}
	if l.of.GetOrZero() && isZero(v) {
		return "", ""
	}
	n := measure(v)
	if l.least != nil && compare(n, l.least) < 0 || l.most != nil && compare(n, l.most) > 0 {
		return "out of range", rangeText(l.of, l.least, l.most)
	}
	return "", ""
}

func (l *limits) wrongText(text string, secret bool) string {
	t := l.of
	if possible := t.GetOneOf(); len(possible) > 0 && !slices.Contains(possible, text) {
		detail := `It is one of "` + strings.Join(possible, `", "`) + `".`
		if similar := Suggest(text, possible); similar != "" && !secret {
			detail = fmt.Sprintf("Did you mean %q? %s", similar, detail)
		}
		return detail
	}
	if l.pattern != nil && !l.pattern.MatchString(text) {
		return "It must match the pattern " + t.GetPattern() + "."
	}
	if t.GetPath() == pluginv1.PathUse_PATH_USE_FILE && strings.HasSuffix(text, "/") {
		return "It must be the path of a file, without a slash at its end."
	}
	return ""
}

// rangeText says within which limits a value lies.
func rangeText(t *pluginv1.Type, least, most any) string {
	of, unit := limitType(t)
	text := func(v any) string { return valueText(of.GetKind(), v) }
	verb := "be"
	if unit != "" {
		unit, verb = " "+unit, "have"
	}
	zero := ""
	if t.GetOrZero() {
		zero = map[pluginv1.Kind]string{pluginv1.Kind_KIND_DURATION: `"0s"`}[t.GetKind()]
		if zero == "" {
			zero = "0"
		}
	}
	switch {
	case most == nil && zero != "":
		return fmt.Sprintf("It must be %s or at least %s.", zero, text(least))
	case zero != "":
		return fmt.Sprintf("It must be %s, or lie between %s and %s.", zero, text(least), text(most))
	case most == nil:
		return fmt.Sprintf("It must %s at least %s%s.", verb, text(least), unit)
	case least == nil:
		return fmt.Sprintf("It must %s at most %s%s.", verb, text(most), unit)
	case unit != "":
		return fmt.Sprintf("It must have between %s and %s%s.", text(least), text(most), unit)
	}
	return fmt.Sprintf("It must lie between %s and %s.", text(least), text(most))
}

// valueText is a number, duration or size as a user would write it.
func valueText(kind pluginv1.Kind, v any) string {
	switch v := v.(type) {
	case time.Duration:
		return strconv.Quote(FormatDuration(v))
	case int64:
		if kind == pluginv1.Kind_KIND_SIZE {
			return strconv.Quote(FormatSize(v))
		}
		return strconv.FormatInt(v, 10)
	}
	return fmt.Sprint(v)
}

// Facts are the limits that a type puts on its values, each in a few words for
// readers of a schema: "one of a, b", "at least 1s".
func Facts(t *pluginv1.Type) (facts []string) {
	if len(t.GetOneOf()) > 0 {
		facts = append(facts, `one of "`+strings.Join(t.GetOneOf(), `", "`)+`"`)
	}
	if least, most, err := bounds(t); err == nil && (least != nil || most != nil) {
		text := strings.TrimSuffix(rangeText(t, least, most), ".")
		for _, verb := range []string{"It must be ", "It must have ", "It must lie "} {
			text = strings.TrimPrefix(text, verb)
		}
		facts = append(facts, text)
	}
	if t.GetPattern() != "" {
		facts = append(facts, "matching "+t.GetPattern())
	}
	switch t.GetPath() {
	case pluginv1.PathUse_PATH_USE_FILE:
		facts = append(facts, "path of a file")
	case pluginv1.PathUse_PATH_USE_FOLDER:
		facts = append(facts, "path of a folder")
	case pluginv1.PathUse_PATH_USE_ANY:
		facts = append(facts, "path of a file or folder")
	}
	if t.GetElement() != nil {
		for _, f := range Facts(t.GetElement()) {
			facts = append(facts, "each "+f)
		}
	}
	return facts
}

// ControlProblem says what is wrong with a text that is to be one line of printable
// characters; empty: nothing. summary follows the name of what holds the text.
func ControlProblem(text string) (summary, detail string) {
	switch line := strings.TrimRight(text, "\r\n"); {
	case !strings.ContainsFunc(text, unicode.IsControl):
		return "", ""
	case !strings.ContainsFunc(line, unicode.IsControl):
		return "ends in a line break", "Wrap the value in trimspace(…) if it comes from a file."
	}
	return "contains a control character", "Write it without line breaks, tabs and the like."
}
