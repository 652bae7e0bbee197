"""How fast the library is, against targets and peers."""
