package sapsocks

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// What VCAP_SERVICES calls the services whose bindings can be used: the connectivity
// service, and credentials that somebody wrote down (cf create-user-provided-service).
const (
	label        = "connectivity"
	userProvided = "user-provided"
)

// errVCAP is why vcap_services cannot be used, with what to do about it.
type errVCAP struct{ summary, detail string }

func (e *errVCAP) Error() string { return e.summary }

// vcapEntry is one binding of VCAP_SERVICES.
type vcapEntry struct {
	Name         string          `json:"name"`
	InstanceName string          `json:"instance_name"`
	InstanceGUID string          `json:"instance_guid"`
	Credentials  json.RawMessage `json:"credentials"`
}

func (e vcapEntry) is(name string) bool {
	return name == e.Name || name == e.InstanceName || name == e.InstanceGUID
}

// parseVCAP picks one binding that holds credentials for the connectivity service. No
// error shows any of the document but names.
func parseVCAP(document, instance string) (binding, error) {
	services, err := parseServices(document)
	if err != nil {
		return binding{}, err
	}
	entry, err := pick(services, instance)
	if err != nil {
		return binding{}, err
	}
	object, err := locate(entry.Credentials)
	if err == nil && object == nil {
		return binding{}, &errVCAP{
			fmt.Sprintf("binding %q holds no credentials for connectivity, such as clientid", entry.Name),
			"Set instance to another binding. A user-provided instance needs the content of a connectivity service key: cf create-user-provided-service NAME -p key.json.",
		}
	}
	var c credentials
	if err == nil {
		c, err = decode(object)
	}
	if err != nil {
		return binding{}, &errVCAP{fmt.Sprintf("the credentials of binding %q cannot be read: %s", entry.Name, jsonProblem(err)), "Bind the application to the service instance again."}
	}
	b, err := c.binding()
	if err != nil {
		return binding{}, &errVCAP{fmt.Sprintf("binding %q: %v", entry.Name, err), "Bind the application to the service instance again, or set proxy."}
	}
	return b, nil
}

// howToBind is what to do about an application without services.
const howToBind = "Bind the application to an instance of service connectivity, plan lite (cf bind-service APP INSTANCE), and start it again (cf restage APP)."

// parseServices reads VCAP_SERVICES, by itself or within the default-env.json of a
// Node.js project.
func parseServices(document string) (map[string][]vcapEntry, error) {
	document = strings.TrimSpace(document)
	switch {
	case document == "":
		return nil, &errVCAP{"vcap_services is empty", "The variable or file that it comes from is there and holds nothing. " + howToBind}
	case strings.HasPrefix(document, "/") && !strings.ContainsAny(document, "{\n"):
		return nil, &errVCAP{"vcap_services is the path of a file, not what the file holds", `Read the file: vcap_services = file(env("VCAP_SERVICES_FILE_PATH")).`}
	}
	broken := func(err error) error {
		return &errVCAP{
			"vcap_services is not a JSON document of services: " + jsonProblem(err),
			`Set it to the whole variable: vcap_services = env("VCAP_SERVICES"). Where Cloud Foundry passes a file: file(env("VCAP_SERVICES_FILE_PATH")).`,
		}
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal([]byte(document), &top); err != nil {
		return nil, broken(err)
	}
	whole := []byte(document)
	if inner, ok := top["VCAP_SERVICES"]; ok {
		whole = inner
		if text := ""; json.Unmarshal(inner, &text) == nil {
			whole = []byte(cmp.Or(text, "{}"))
		}
	} else if object, err := locate([]byte(document)); err == nil && object != nil {
		return nil, &errVCAP{
			"vcap_services holds credentials alone, as a service key does, and not the services of an application",
			`Write its values as proxy and oauth, or make the document {"user-provided": [{"name": "NAME", "credentials": …}]} and set instance = "NAME".`,
		}
	}
	var services map[string][]vcapEntry
	if err := json.Unmarshal(whole, &services); err != nil {
		return nil, broken(err)
	}
	if len(services) == 0 {
		return nil, &errVCAP{"vcap_services has no services: the application is bound to none", howToBind}
	}
	return services, nil
}

// pick returns the one binding that is meant. One of a user-provided instance may hold
// anything, so it has to be named.
func pick(services map[string][]vcapEntry, instance string) (vcapEntry, error) {
	entries, others := services[label], services[userProvided]
	if instance != "" {
		entries = slices.Concat(entries, others)
	}
	if len(entries) == 0 {
		detail := howToBind
		if len(others) > 0 {
			detail = "If a user-provided instance holds the credentials, set instance to its name: " + list(namesOf(others)) + ". Otherwise: " + howToBind
		}
		return vcapEntry{}, &errVCAP{"vcap_services has no binding of the connectivity service, only of: " + list(slices.Sorted(maps.Keys(services))), detail}
	}
	var found []vcapEntry
	for _, e := range entries {
		if instance == "" || e.is(instance) {
			found = append(found, e)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return vcapEntry{}, &errVCAP{"vcap_services has several bindings of the connectivity service: " + list(namesOf(found)), "Set instance to one of them."}
	default:
		return vcapEntry{}, &errVCAP{fmt.Sprintf("vcap_services has no connectivity or user-provided binding or instance %q, only: %s", instance, list(namesOf(entries))), "Set instance to one of them."}
	}
}

func namesOf(entries []vcapEntry) []string {
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names
}
