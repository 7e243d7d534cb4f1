package hclbody

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/schema"
	"github.com/tunneld/tunneld/plugins/sdk"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// What a user may write in the configuration an author may write in a tag, and
// nothing else: the daemon and the SDK read the same notation.

type noDial struct{}

func (*noDial) Dial(context.Context, *sdk.Request) (*sdk.Tunnel, error) { return nil, nil }

type rightNotation struct {
	noDial `tunneld:"-"`
	S1     sdk.Size      `tunneld:"s1" default:"0"`
	S2     sdk.Size      `tunneld:"s2" default:"512B"`
	S3     sdk.Size      `tunneld:"s3" default:"1TiB"`
	S4     sdk.Size      `tunneld:"s4" default:"1TB"`
	S5     sdk.Size      `tunneld:"s5" default:"1 KiB"`
	S6     sdk.Size      `tunneld:"s6" default:"1kB"`
	S7     sdk.Size      `tunneld:"s7" default:"1KB"`
	S8     sdk.Size      `tunneld:"s8" default:"8192TiB"`
	D1     time.Duration `tunneld:"d1" default:"0s"`
	D2     time.Duration `tunneld:"d2" default:"1h30m"`
	D3     time.Duration `tunneld:"d3" default:"1m0.5s"`
	D4     time.Duration `tunneld:"d4" default:"1ns"`
	I1     int           `tunneld:"i1" default:"-42"`
	I2     int           `tunneld:"i2" default:"9007199254740992"`
	F1     float64       `tunneld:"f1" default:"2.50"`
	F2     float64       `tunneld:"f2" default:"1e3"`
	B1     bool          `tunneld:"b1" default:"true"`
	T1     string        `tunneld:"t1" default:""`
	T2     string        `tunneld:"t2" default:"<&> ä"`

	Letters64 string `tunneld:"a234567890123456789012345678901234567890123456789012345678901234" default:"x"`
}

type wrongNotation struct {
	noDial `tunneld:"-"`
	S1     sdk.Size      `tunneld:"s1" default:""`
	S2     sdk.Size      `tunneld:"s2" default:"1  KiB"`
	S3     sdk.Size      `tunneld:"s3" default:" 1KiB"`
	S4     sdk.Size      `tunneld:"s4" default:"1KiB "`
	S5     sdk.Size      `tunneld:"s5" default:"1kib"`
	S6     sdk.Size      `tunneld:"s6" default:"1.5MB"`
	S7     sdk.Size      `tunneld:"s7" default:"-1"`
	S8     sdk.Size      `tunneld:"s8" default:"8193TiB"`
	S9     sdk.Size      `tunneld:"s9" default:"9007199254740993"`
	D1     time.Duration `tunneld:"d1" default:""`
	D2     time.Duration `tunneld:"d2" default:"0"`
	D3     time.Duration `tunneld:"d3" default:"-1s"`
	D4     time.Duration `tunneld:"d4" default:"1d"`
	D5     time.Duration `tunneld:"d5" default:"30"`
	D6     time.Duration `tunneld:"d6" default:"999999999h"`
	I1     int           `tunneld:"i1" default:"1.5"`
	I2     int           `tunneld:"i2" default:"9007199254740993"`
	I3     int           `tunneld:"i3" default:"99999999999999999999"`
	I4     int           `tunneld:"i4" default:"one"`
	F1     float64       `tunneld:"f1" default:"NaN"`
	F2     float64       `tunneld:"f2" default:"1e400"`
	B1     bool          `tunneld:"b1" default:"yes"`
}

// tags returns the names of the attributes with their defaults as written.
func tags(d sdk.Dialer) (names, texts []string) {
	t := reflect.TypeOf(d).Elem()
	for i := range t.NumField() {
		if text, ok := t.Field(i).Tag.Lookup("default"); ok {
			names, texts = append(names, t.Field(i).Tag.Get("tunneld")), append(texts, text)
		}
	}
	return names, texts
}

func TestNotationIsTheSameOnBothSides(t *testing.T) {
	right, err := sdk.SchemaOf(new(rightNotation))
	if err != nil {
		t.Fatal(err)
	}
	names, texts := tags(new(rightNotation))
	for i, name := range names {
		a := schema.Attribute(right, name)
		got, problems := decode(t, &pluginv1.Block{Attributes: []*pluginv1.Attribute{{Name: name, Type: a.GetType()}}}, name+" = "+strconv.Quote(texts[i]))
		if want := fmt.Sprintf("{%q:%s}", name, a.GetDefaultJson()); got != want || problems != "" {
			t.Errorf("%s of %q: the daemon has %s (%s), the SDK %s", name, texts[i], got, problems, want)
		}
	}

	_, err = sdk.SchemaOf(new(wrongNotation))
	if err == nil {
		t.Fatal("the SDK takes it")
	}
	names, texts = tags(new(wrongNotation))
	said := err.Error() + "\n"
	for i, name := range names {
		kind := map[byte]pluginv1.Kind{'s': pluginv1.Kind_KIND_SIZE, 'd': pluginv1.Kind_KIND_DURATION, 'i': pluginv1.Kind_KIND_INT, 'f': pluginv1.Kind_KIND_FLOAT, 'b': pluginv1.Kind_KIND_BOOL}[name[0]]
		_, problems := decode(t, &pluginv1.Block{Attributes: []*pluginv1.Attribute{{Name: name, Type: typ(kind)}}}, name+" = "+strconv.Quote(texts[i]))
		_, sentence, _ := strings.Cut(problems, fmt.Sprintf("1: Wrong value for %q: ", name))
		if sentence == "" {
			t.Errorf("the daemon takes %q for %s: %s", texts[i], name, problems)
		}
		if kind == pluginv1.Kind_KIND_BOOL {
			sentence = "not a bool"
		}
		if want := fmt.Sprintf("wrongNotation.%s: default %q: %s\n", strings.ToUpper(name), texts[i], sentence); !strings.Contains(said, want) {
			t.Errorf("the daemon says of %s: %q; the SDK:\n%s", name, sentence, said)
		}
	}
}

// What the SDK makes of a struct the daemon takes, and refuses what the SDK refuses.
func TestNamesAndDepthAreTheSameOnBothSides(t *testing.T) {
	type l8 struct {
		V string `tunneld:"v"`
	}
	type l7 struct {
		L l8 `tunneld:"l"`
	}
	type l6 struct {
		L l7 `tunneld:"l"`
	}
	type l5 struct {
		L l6 `tunneld:"l"`
	}
	type l4 struct {
		L l5 `tunneld:"l"`
	}
	type l3 struct {
		L l4 `tunneld:"l"`
	}
	type l2 struct {
		L l3 `tunneld:"l"`
	}
	type l1 struct {
		noDial `tunneld:"-"`
		L      l2 `tunneld:"l"`
	}
	type l0 struct {
		noDial `tunneld:"-"`
		L      struct {
			L l2 `tunneld:"l"`
		} `tunneld:"l"`
	}
	type letters65 struct {
		noDial `tunneld:"-"`
		A      string `tunneld:"a2345678901234567890123456789012345678901234567890123456789012345"`
	}
	type upperCase struct {
		noDial `tunneld:"-"`
		A      string `tunneld:"aB"`
	}
	type reserved struct {
		noDial `tunneld:"-"`
		A      string `tunneld:"pool"`
	}
	type deepList struct {
		noDial `tunneld:"-"`
		A      [][][][][][][][]string `tunneld:"a"`
	}
	wrap := func(b *pluginv1.Block) *pluginv1.Block {
		return &pluginv1.Block{Blocks: []*pluginv1.NestedBlock{{Name: "l", Nesting: pluginv1.Nesting_NESTING_SINGLE, Body: b}}}
	}
	named := func(name string, t *pluginv1.Type) *pluginv1.Block {
		return &pluginv1.Block{Attributes: []*pluginv1.Attribute{{Name: name, Type: t}}}
	}
	eight := named("v", str)
	for range 7 {
		eight = wrap(eight)
	}
	deep := str
	for range 8 {
		deep = typ(pluginv1.Kind_KIND_LIST, deep)
	}
	for name, c := range map[string]struct {
		author sdk.Dialer
		daemon *pluginv1.Block
		right  bool
	}{
		"eight levels":   {new(l1), eight, true},
		"nine levels":    {new(l0), wrap(eight), false},
		"65 letters":     {new(letters65), named("a2345678901234567890123456789012345678901234567890123456789012345", str), false},
		"upper case":     {new(upperCase), named("aB", str), false},
		"reserved":       {new(reserved), named("pool", str), false},
		"a list of nine": {new(deepList), named("a", deep), false},
	} {
		if _, err := sdk.SchemaOf(c.author); (err == nil) != c.right {
			t.Errorf("%s: the SDK says %v", name, err)
		}
		if err := schema.Check(c.daemon); (err == nil) != c.right {
			t.Errorf("%s: the daemon says %v", name, err)
		}
	}
}
