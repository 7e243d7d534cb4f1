package sdk

// Helpers that the tests of both packages share.
var (
	SelfSigned = selfSigned
	PEMFiles   = pemFiles
)
