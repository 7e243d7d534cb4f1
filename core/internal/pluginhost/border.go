package pluginhost

import (
	"cmp"
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tunneld/tunneld/internal/plaintext"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// This file is the border: what a plugin says in a call is cleaned here, once, so
// that nobody behind it has to. What it prints is cleaned in output, and what it
// sends on the descriptor channel in tokens.

// Bounds on what a plugin can make of a line, in bytes.
const (
	maxText    = 1024 // a message or a hint
	maxName    = 64   // a name or a version
	maxSummary = 256
	maxAddress = 255
)

// bounds are those of the fields that have another than maxText.
var bounds = map[protoreflect.Name]map[protoreflect.Name]int{
	"GetInfoResponse": {"name": maxName, "version": maxName, "capabilities": maxName, "summary": maxSummary},
	"Connected":       {"local_address": maxAddress, "remote_address": maxAddress},
}

// Cleaned makes of what a plugin says in calls texts that are fit to be shown.
func Cleaned() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(cleanUnary), grpc.WithChainStreamInterceptor(cleanStream)}
}

// cleanUnary is a grpc.UnaryClientInterceptor.
func cleanUnary(ctx context.Context, method string, req, answer any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, answer, cc, opts...)
	cleanAnswer(answer)
	return cleanStatus(err)
}

// cleanStream is a grpc.StreamClientInterceptor.
func cleanStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, cleanStatus(err)
	}
	return textStream{s}, nil
}

// textStream is a stream whose messages are cleaned.
type textStream struct{ grpc.ClientStream }

// RecvMsg receives a message.
func (s textStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	cleanAnswer(m)
	return cleanStatus(err)
}

// cleanStatus cleans the message of a gRPC status.
func cleanStatus(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	s := status.Convert(err)
	return status.Error(s.Code(), clean(s.Message(), maxText))
}

// cleanAnswer cleans a message of the plugin protocol; others are go-plugin's own.
func cleanAnswer(m any) {
	pm, ok := m.(proto.Message)
	if !ok || pm.ProtoReflect().Descriptor().ParentFile() != pluginv1.File_tunneld_plugin_v1_plugin_proto {
		return
	}
	cleanMessage(pm.ProtoReflect())
}

// cleanMessage cleans every text in m and below.
func cleanMessage(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch list := f.IsList(); {
		case f.Kind() == protoreflect.MessageKind && list:
			for i := range v.List().Len() {
				cleanMessage(v.List().Get(i).Message())
			}
		case f.Kind() == protoreflect.MessageKind:
			cleanMessage(v.Message())
		case f.Kind() == protoreflect.StringKind && list:
			for i := range v.List().Len() {
				v.List().Set(i, protoreflect.ValueOfString(cleanField(f, v.List().Get(i).String())))
			}
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(cleanField(f, v.String())))
		}
		return true
	})
}

// cleanField cleans one text.
func cleanField(f protoreflect.FieldDescriptor, s string) string {
	of := f.ContainingMessage().Name()
	switch of {
	case "Block", "Attribute", "NestedBlock":
		// Documentation: its examples of URLs hold no secret, and the schema's own
		// check bounds its size.
		if f.Name() == "default_json" {
			return plaintext.EscapeJSON(s)
		}
		return plaintext.Shown(s)
	}
	return clean(s, cmp.Or(bounds[of][f.Name()], maxText))
}

// clean makes a plugin's text fit for a line of at most n bytes.
func clean(s string, n int) string { return plaintext.Line(s, n) }

// cleanError is an error whose text is cleaned: go-plugin's repeat what a plugin
// printed.
type cleanError struct{ err error }

// Error returns the text in one line.
func (e cleanError) Error() string { return clean(e.err.Error(), maxText) }

// Unwrap returns the error itself.
func (e cleanError) Unwrap() error { return e.err }
