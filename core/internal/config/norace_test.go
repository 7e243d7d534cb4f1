//go:build !race

package config

const editStride = 1
