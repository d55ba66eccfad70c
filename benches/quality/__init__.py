"""A laboratory: the same speech over the same bad network, played out by several receivers, judged by PESQ and STOI."""
