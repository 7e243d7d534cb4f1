package sdk_test

import (
	"fmt"
	"testing"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// The schema of a struct is what "tunneld plugin schema" shows.
func ExampleSchemaOf() {
	schema, err := sdk.SchemaOf(new(Acme))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range schema.GetAttributes() {
		fmt.Println(a.GetName(), a.GetType().GetKind().Text(), "required:", a.GetRequired(), "sensitive:", a.GetSensitive())
	}
	// Output:
	// proxy string required: true sensitive: false
	// password string required: false sensitive: true
}

// TestExamplesAreSchemas: the structs of the examples can be configured.
func TestExamplesAreSchemas(t *testing.T) {
	for _, d := range []sdk.Dialer{new(Acme), new(Framed), new(Tokened)} {
		if _, err := sdk.SchemaOf(d); err != nil {
			t.Error(err)
		}
	}
}
