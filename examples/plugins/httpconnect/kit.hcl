# For tunneld plugin test: COMMAND stands for the path of the plugin's program.
plugin "httpconnect" {
  command = ["COMMAND"]
}

upstream "httpconnect" "kit" {
  proxy    = "127.0.0.1:8888"
  username = "kit"
  password = "not-a-word-of-any-log"
}
