"""Streams over WebSocket: a small web application that speaks the contract of streams inward."""
