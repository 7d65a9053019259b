"""The hypernetworks there are: one file each, the class under the module's name."""
