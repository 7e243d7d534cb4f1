# A block of everything.
upstream "every" "example" {
  # Some text.
  # string, required
  s = "…"

  # bool
  # b = true

  # int
  # i = 1

  # float
  # f = 1.5

  # duration
  # d = "30s"

  # size
  # z = "64KiB"

  # list of list of int
  # l = [[1]]

  # map of duration
  # m = { name = "30s" }

  # string, sensitive
  # secret = "…"

  # With | a default.
  # size, this is the default
  # def = "64KiB"

  # Deprecated: Use "s".
  # string
  # old = "…"

  # block, exactly one
  one {
    # string, required
    need = "…"

    # duration, this is the default
    # with = "1.5s"
  }

  # block, any number
  # many {
  #   # string, required
  #   need = "…"
  #
  #   # duration, this is the default
  #   # with = "1.5s"
  # }

  # block, any number, each with a name
  # named "example" {
  #   # string, required
  #   need = "…"
  #
  #   # duration, this is the default
  #   # with = "1.5s"
  # }
}
