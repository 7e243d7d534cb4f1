# For tunneld plugin test: COMMAND stands for the path of plugin.py.
plugin "pydirect" {
  command = ["COMMAND"]
}

upstream "pydirect" "kit" {
  timeout = "5s"
}
