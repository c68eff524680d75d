"""A network on another computer, from the side of whoever uses it.

message      what is sent: numbers and arrays, compressed without loss; bounded, nothing to execute
connection   requests to a server, several at a time; tried again when the connection is lost
"""
