module meshlib/http2-server

go 1.24
