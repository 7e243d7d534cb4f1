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
	b, err := json.Marshal(values{"connectivity": entries, "xsuaa": []values{{"name": "login", "credentials": values{}}}})
	if err != nil {
		panic(err)
	}
	return string(b)
}
