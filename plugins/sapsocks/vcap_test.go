package sapsocks_test

import "encoding/json"

// entry is one binding of VCAP_SERVICES, as Cloud Foundry writes it.
func entry(name string, credentials values) values {
	return values{
		"name": name, "instance_name": name + "-instance", "instance_guid": "guid-of-" + name,
		"label": "connectivity", "plan": "lite", "tags": []string{"connectivity"},
		"credentials": credentials,
	}
}

func vcapServices(entries ...values) string {
	return string(marshal(values{"connectivity": entries, "xsuaa": []values{{"name": "login", "credentials": values{}}}}))
}

// userProvided is the VCAP_SERVICES of an application that is bound to nothing but what
// cf create-user-provided-service made.
func userProvided(name string, credentials values) string {
	return string(marshal(values{"user-provided": []values{{
		"name": name, "instance_name": name, "instance_guid": "guid-of-" + name,
		"label": "user-provided", "tags": []string{}, "credentials": credentials,
	}}}))
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
