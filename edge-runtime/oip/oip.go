// Package oip holds the messages of the Open Inference Protocol V2 as gRPC carries them, generated from inference.proto.
package oip

//go:generate go run github.com/waybill-ml/waybill/internal/protogen inference.proto
